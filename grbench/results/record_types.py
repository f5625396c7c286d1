"""What the mappings of a record hold where tables and plans read them; other keys may hold anything."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

import pydantic
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12


def _as_written(value: Any, check: pydantic.ValidatorFunctionWrapHandler) -> Any:
    """The value itself, once it is checked: pydantic would make 512 a 512.0."""
    check(value)
    return value


Amount = Annotated[float | None, pydantic.WrapValidator(_as_written)]
"""A number, whole where it is written so; None where it is not known."""

Number = Annotated[float, pydantic.WrapValidator(_as_written)]
"""The same, but always known."""

Digest = Annotated[str, pydantic.Field(pattern=r"^[\w.-]{0,64}$")]
"""Hex digits. A pattern, because files are named by it."""

FileName = Annotated[str, pydantic.Field(pattern=r"^\w[\w.-]{0,199}$")]
"""Of a file beside the record: never a path to somewhere else."""

Checksum = Annotated[str, pydantic.Field(pattern=r"^([0-9a-f]{64})?$")]
"""sha256 in hex digits; empty = not known."""


def _holds(fields: type) -> pydantic.GetPydanticSchema:
    """Validates a mapping as `fields`, a TypedDict. To type checkers it stays a mapping."""
    return pydantic.GetPydanticSchema(lambda _, handler: handler.generate_schema(fields))


class _OpenFields(TypedDict, total=False):
    __pydantic_config__ = pydantic.ConfigDict(extra="allow", strict=True, allow_inf_nan=False)  # type: ignore[misc]


class _RankingFields(_OpenFields, total=False):
    filters: list[str]


class _CutoffFields(_OpenFields, total=False):
    k: int | None


class _MetricIdentityFields(_OpenFields, total=False):
    options: Annotated[dict[str, Any], _holds(_CutoffFields)]


class _StageOptionFields(_OpenFields, total=False):
    validate_every: int | None
    select: str | None


class _StageFields(_OpenFields, total=False):
    training: Annotated[dict[str, Any], _holds(_StageOptionFields)]


class _TrainingFields(_OpenFields, total=False):
    stages: list[Annotated[dict[str, Any], _holds(_StageFields)]]


class _IdentityFields(_OpenFields, total=False):
    training: Annotated[dict[str, Any], _holds(_TrainingFields)]
    ranking: Annotated[dict[str, Any], _holds(_RankingFields)]
    metrics: list[Annotated[dict[str, Any], _holds(_MetricIdentityFields)]]
    filters: list[str]  # in schema 1


class _NamedFields(_OpenFields, total=False):
    name: str
    digest: str


class _PoolFields(_OpenFields):
    size: int
    digest: str


class _MetricFields(_OpenFields, total=False):
    label: str | None
    higher_is_better: bool
    per_user: bool
    version: str


class _ListsFields(_OpenFields, total=False):
    scored: int | None
    kept: int | None
    shortest: int | None
    kept_shortest: int | None
    unlabelled: dict[str, str]


class _WeightsFields(_OpenFields, total=False):
    bytes: int
    sha256: str


class _TiesFields(_OpenFields):
    events: int
    users: int
    latest: int
    broken_by: str


class _CountsFields(_OpenFields, total=False):
    evaluated: int
    dropped: dict[str, int]
    unreachable: dict[str, int]
    parameters: int | None
    best_epoch: int | None
    validation_users: int
    validated_users: int
    validation_also_tested: int
    remarks: list[str]
    ties: Annotated[dict[str, Any], _holds(_TiesFields)]


class _PhaseFields(_OpenFields, total=False):
    seconds: Amount
    batch_size: Amount


class _BesideFields(_OpenFields, total=False):
    cells: int
    share: Amount
    threads: int


class _DeviceFields(_OpenFields, total=False):
    number: int
    backend: str
    device_seconds: Amount
    communication_share: Amount
    peak_gpu_bytes: list[Amount]
    peak_process_bytes: list[Amount]


class _CostFields(_OpenFields, total=False):
    beside: Annotated[dict[str, Any], _holds(_BesideFields)]
    devices: Annotated[dict[str, Any], _holds(_DeviceFields)]
    phases: dict[str, Annotated[dict[str, Any], _holds(_PhaseFields)]]
    total_seconds: Amount
    train_seconds: Amount
    resumptions: int
    lost_seconds: Amount
    earlier_seconds: Amount
    train_users_per_second: Amount
    train_tflops_per_second: Amount
    train_share_of_peak: Amount
    search_queries_per_second: Amount
    search_p99_ms: Amount
    peak_process_bytes: Amount
    peak_gpu_bytes: Amount


class _ExternalFields(_OpenFields):
    file: str
    format: str
    sha256: str
    note: str
    users_not_evaluated: int
    users_without_list: int


class _EnvironmentFields(_OpenFields, total=False):
    cpu: str | None
    cpu_threads: int | None
    ram_bytes: Amount
    gpu: str | None
    devices: int


class _PublishedFields(_OpenFields):
    metric: str
    value: Number
    source: str
    same_protocol: bool
    differs: NotRequired[str]
    interval: NotRequired[Annotated[list[Number], pydantic.Field(min_length=2, max_length=2)]]
    standard_error: NotRequired[Number]
    seeds: NotRequired[int]
    users: NotRequired[int]


class _TrialFields(_OpenFields):
    study: Digest
    number: int
    values: dict[str, Any]
    state: Literal["running", "complete", "pruned", "failed"]
    metric: str
    value: Amount
    seconds: Amount


class _TuningFields(_OpenFields):
    trials: int
    pruned: int
    failed: int
    budget: dict[str, Amount]
    sampler: str
    pruner: str
    metric: str
    values: dict[str, Any]
    number: int
    validation: Amount
    seconds: Amount
    not_repeatable: list[str]


class _GridFields(_OpenFields):
    name: str
    points: int
    ablation: bool


class _PlaceFields(TypedDict):
    __pydantic_config__ = pydantic.ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)  # type: ignore[misc]
    method: str
    order: int
    tuning: Annotated[dict[str, Any], _holds(_TuningFields)] | None
    grid: Annotated[dict[str, Any], _holds(_GridFields)] | None
    published: list[Annotated[dict[str, Any], _holds(_PublishedFields)]]


IdentityFacts = Annotated[dict[str, Any], _holds(_IdentityFields)]
NamedFacts = Annotated[dict[str, Any], _holds(_NamedFields)]
PoolFacts = Annotated[dict[str, Any], _holds(_PoolFields)]
MetricFacts = Annotated[dict[str, Any], _holds(_MetricFields)]
ListFacts = Annotated[dict[str, Any], _holds(_ListsFields)]
WeightFacts = Annotated[dict[str, Any], _holds(_WeightsFields)]
CountFacts = Annotated[dict[str, Any], _holds(_CountsFields)]
CostFacts = Annotated[dict[str, Any], _holds(_CostFields)]
ExternalFacts = Annotated[dict[str, Any], _holds(_ExternalFields)]
EnvironmentFacts = Annotated[dict[str, Any], _holds(_EnvironmentFields)]
PublishedFacts = Annotated[dict[str, Any], _holds(_PublishedFields)]
TrialFacts = Annotated[dict[str, Any], _holds(_TrialFields)]
TuningFacts = Annotated[dict[str, Any], _holds(_TuningFields)]
GridFacts = Annotated[dict[str, Any], _holds(_GridFields)]
PlaceFacts = Annotated[dict[str, Any], _holds(_PlaceFields)]
