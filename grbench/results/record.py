"""The record of a cell: its results, and everything needed to judge them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pydantic
import pydantic_core

from grbench.errors import RunError, cut
from grbench.registry.options import explained
from grbench.results.checksums import AlteredError, content_checksum
from grbench.results.record_types import (
    Checksum,
    CostFacts,
    CountFacts,
    Digest,
    EnvironmentFacts,
    ExternalFacts,
    FileName,
    GridFacts,
    IdentityFacts,
    ListFacts,
    MetricFacts,
    NamedFacts,
    PlaceFacts,
    PoolFacts,
    PublishedFacts,
    TrialFacts,
    TuningFacts,
    WeightFacts,
)

SCHEMA_VERSION = 3
"""Version 2: the identity has the parts training, ranking and metrics, and the record their digests and `lists`.
Version 3: a record has a checksum. Fields that earlier versions lack are empty when such a record is read."""

CHECKSUM_VERSION = 3
"""Records of this schema and later ones are refused without a checksum."""

Status = Literal["ok", "error", "oom", "killed", "timeout", "interrupted"]

MOVE_IT = "move it away or delete it"
TRIALS = "trials"
"""The folder of the records of a suite's trials, in that of its cells."""
NOT_WRITTEN = ("lists_altered", "lists_gone", "folder")
"""Fields that say what was found out when the record was read."""


@pydantic.with_config(pydantic.ConfigDict(extra="ignore", strict=True, allow_inf_nan=False))
@dataclass(frozen=True)
class Record:
    """One cell's result. Times are ISO 8601 in UTC, durations seconds, memory bytes, rates per second.

    digest:      digest of `identity`, which is everything that the cell's numbers depend on
    training_digest: cells with the same one have the same trained model
    lists_digest: cells with the same one have the same ranked lists
    suite, method, seed: the cell; order: index of the method in its suite
    status:      ok, error, oom, killed, timeout or interrupted; error: {type, message, traceback}, None if ok
    dataset:     {name, digest, options}; protocol: {name, and all its options}
    metrics:     {name: {label, higher_is_better, version, per_user: false for a property of all lists together}}, in
                 the suite's order
    pool:        {size, digest} of the ranked candidates; None where the cell failed before they were known
    scores:      {metric: mean over the evaluated users}
    lists:       lengths of the lists in the parquet file: {scored, shortest: the fewest items in one of these, kept: of
                 the longer lists or None, kept_shortest, error: why they are missing though the suite asked for them,
                 unlabelled: {slice that failed: what it raised}}
    rescored_from: digest of the record whose lists and costs were reused; None = this cell was trained and searched
    external:    of rankings that were made elsewhere and scored here, which have no costs: {file, format, sha256 of its
                 content, note: how they were made, by: who scored them, ordered_by, users_not_evaluated: whose lists
                 were left out, users_without_list: who count as missed}; None = this cell was run
    weights:     of the file of the trained model beside the record: {bytes, sha256}; empty where it was not kept
    weights_from: digest of the record from whose weights this cell was ranked, and whose costs of training these are;
                 None = this cell was trained
    counts:      {evaluated, dropped: {reason: users}, unreachable: {filter, or any: targets that it leaves out of the
                 lists}, validation_users: that the protocol holds out, validated_users: that select the best state
                 (the most of any stage, 0 without validation), parameters, collisions, remarks: sentences on what of
                 the source was not read and what it leaves open, ties: events of a user with equal times (fields of
                 `data.ties.Ties`; absent where there are no times), ...}
    cost:        {phases: {name: {seconds, ...}}, total_seconds, overhead_seconds (total without all phases),
                 train_users_per_second, search_p99_ms, peak memory, beside: {cells: the most other cells that ran on
                 the machine meanwhile, share: of the time in which any did, threads: how many those were given; of
                 those that the same user runs with the same cache folder}, ...}; of a cell that went on from
                 checkpoints, sums over its attempts: {resumptions, lost_seconds: of work that was done again and is in
                 no other cost, earlier_seconds: of total_seconds, those of earlier attempts, or of the record that
                 `weights_from` names, begun_with: what of the machine was another then}; of a cell on several devices,
                 devices: {number, backend: gloo or nccl, device_seconds: of all phases, times the devices,
                 communication_share: of the time of training, spent in exchanges and in waiting for slower devices,
                 peak_gpu_bytes and peak_process_bytes: of each}, where CPU time, energy and peak_process_bytes are
                 sums over its processes, and peak_gpu_bytes that of the device with most
    environment: CPU, RAM, GPU, devices that shared the cell, versions, git
    tokenizer:   the tokenizer's report; curve: one row per epoch, with its stage where there are several
    trial:       of a trial of a tuned method, None for other cells: {study: its search, number: 0 = the first, values:
                 {option's key: value}, metric: that trials are compared by, value: its validation score, state:
                 running, complete, pruned or failed, seconds: of training, same_as: digest of the record whose training
                 this one repeats, so that it was not done again}. A trial has no test scores and no lists
    tuning:      of a method whose options were tuned: {budget, trials, complete, pruned, failed: how many; sampler,
                 pruner, startup_trials, batch (where it is not 1), seed; metric, number, values, validation: of the
                 trial that was chosen, and its score; seconds: of training of all trials; not_repeatable: reasons why
                 the search may end otherwise}
    grid:        of a row of a grid: {name: of the grid, points: its number of rows, ablation: whether the suite says
                 that all are tested and none is chosen}
    also:        further methods of the suite with the same options, which are the same experiment: {method, order,
                 tuning, grid, published} of each. Tables have a row for each of them
    title:       title of the suite; baseline: method that others are tested against; None where the suite has none
    published:   the suite's published figures of the method, as `suite.published.figure_options` has them
    started, finished: when the cell started and finished
    files:       {name of a file beside the record, such as its lists: sha256 of its content}
    checksum:    sha256 of all other fields as canonical JSON (keys sorted, no spaces, ASCII); computed when the
                 record is written, and empty in one of a schema before 3
    lists_altered: whether the lists are not those that the record was written with; found out by
                 `integrity.with_altered`, and not written
    lists_gone:  whether the record has scores, but the file of its lists is not there; found out when the record is
                 read, and not written
    folder:      of the record and its lists; None before it is read, and not written
    """

    digest: Digest
    suite: str
    method: str
    seed: int
    status: Status
    training_digest: Digest = ""
    lists_digest: Digest = ""
    order: int = 0
    identity: IdentityFacts = field(default_factory=dict)
    error: dict[str, str] | None = None
    dataset: NamedFacts = field(default_factory=dict)
    protocol: NamedFacts = field(default_factory=dict)
    metrics: dict[str, MetricFacts] = field(default_factory=dict)
    pool: PoolFacts | None = None
    scores: dict[str, float | None] = field(default_factory=dict)
    lists: ListFacts = field(default_factory=dict)
    rescored_from: Digest | None = None
    external: ExternalFacts | None = None
    weights: WeightFacts = field(default_factory=dict)
    weights_from: Digest | None = None
    counts: CountFacts = field(default_factory=dict)
    cost: CostFacts = field(default_factory=dict)
    environment: EnvironmentFacts = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    trial: TrialFacts | None = None
    tuning: TuningFacts | None = None
    grid: GridFacts | None = None
    also: list[PlaceFacts] = field(default_factory=list)
    title: str | None = None
    baseline: str | None = None
    published: list[PublishedFacts] = field(default_factory=list)
    started: str = ""
    finished: str = ""
    files: dict[FileName, Checksum] = field(default_factory=dict, compare=False)
    checksum: Checksum = field(default="", compare=False)
    lists_altered: bool = field(default=False, compare=False)
    lists_gone: bool = field(default=False, compare=False)
    folder: Path | None = field(default=None, compare=False)

    @property
    def done(self) -> bool:
        """Whether the cell need not run again: it has scores, and the lists that they are of."""
        return self.status == "ok" and not self.lists_gone and not self.lists_altered

    @property
    def validation(self) -> dict[str, float]:
        """{metric: validation score of the state that training kept}; empty where it did not validate."""
        best = self.counts.get("best_epoch")
        kept = next((row for row in self.curve if best is not None and row.get("epoch") == best), {})
        return {name: kept[name] for name in self.metrics if isinstance(kept.get(name), int | float)}

    @property
    def older_identity(self) -> bool:
        """Whether the record was written by an earlier grbench, whose identities covered less; cells are never matched
        with such a record."""
        return bool(self.identity) and "ranking" not in self.identity

    @property
    def list_length(self) -> int:
        """The largest k of a metric that can be computed from the recorded lists; 0 where there are none."""
        return max(self.lists.get("scored") or 0, self.lists.get("kept") or 0)

    def to_json(self) -> str:
        """The text of the record file."""
        values = {"schema": SCHEMA_VERSION, **{key.name: getattr(self, key.name) for key in dataclasses.fields(self)}}
        for name in (*NOT_WRITTEN, "checksum"):
            del values[name]
        values = _json_ready(values)
        return json.dumps({**values, "checksum": content_checksum(values)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Record:
        """Parses a record of this schema version or an older one. where: the file, for messages. Raises RunError where
        the text is not a record, naming the field that is not valid, or its schema is newer; AlteredError where its
        checksum is that of other content."""
        values = parsed_json(text, where)
        if not has_schema(values):
            raise RunError(f"{where}: not a record of grbench (no schema version); {MOVE_IT}")
        if values["schema"] > SCHEMA_VERSION:
            raise RunError(
                f"{where}: written by a newer grbench (record schema {cut(str(values['schema']))}, this one reads "
                f"up to {SCHEMA_VERSION}); upgrade grbench or choose another results folder"
            )
        try:
            record = _adapter().validate_json(text)
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
            key = cut(".".join(map(str, problem["loc"])))
            raise RunError(f"{where}: {key}: {explained(problem)}; the record is damaged, {MOVE_IT}") from error
        said = values.pop("checksum", "")
        if (said or values["schema"] >= CHECKSUM_VERSION) and said != content_checksum(values):
            raise AlteredError(
                f"{where}: the record was altered after it was written (its checksum is of other content)"
            )
        return record


@cache
def _adapter() -> pydantic.TypeAdapter[Record]:
    return pydantic.TypeAdapter(Record)


def parsed_json(text: str | bytes, where: str) -> Any:
    try:
        return pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise RunError(f"{where}: not a record of grbench ({error}); {MOVE_IT}") from error


def has_schema(values: Any) -> bool:
    """Whether JSON content says its schema version, as records do."""
    return isinstance(values, dict) and type(values.get("schema")) is int


def now() -> str:
    """The current time in UTC, ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _json_ready(value: Any) -> Any:
    """The value with JSON's types only: numpy values, paths and tuples are converted; floats that are not finite become
    None."""
    if isinstance(value, Mapping):
        return {str(key): _json_ready(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _json_ready(value.tolist())
    raise TypeError(f"a record cannot hold {value!r} ({type(value).__name__})")
