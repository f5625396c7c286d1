"""Rows of result tables: which records can be compared, and which of them form one row.

Records are comparable where dataset, protocol, candidate pool and versions of the metrics agree. Records of one method
that differ in their seeds only form one row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grbench.report.format import plain
from grbench.results.record import Record

OLDER = "older identity"


@dataclass(frozen=True)
class Row:
    """One method with its records, one per seed. name: what it is called in tables; in_records: its name before that
    was chosen, empty where it was not."""

    name: str
    records: tuple[Record, ...]
    in_records: str = ""

    @property
    def done(self) -> list[Record]:
        """Records with status ok, which have scores."""
        return [record for record in self.records if record.status == "ok"]

    @property
    def external(self) -> bool:
        """Whether its lists were made elsewhere."""
        return any(record.external for record in self.records)

    @property
    def failed(self) -> list[Record]:
        """Records with any other status."""
        return [record for record in self.records if record.status != "ok"]


def comparable_groups(records: Sequence[Record]) -> list[list[Record]]:
    """Groups records that can be compared, in order: their `comparison_facts` are equal, as far as both have them. So a
    cell that failed before its pool was known joins the first group whose other facts are equal, and a record may have
    metrics that others lack."""
    groups: list[tuple[dict[str, Any], list[tuple[int, Record]]]] = []
    places = list(enumerate(records))
    for place, record in [*(each for each in places if each[1].pool), *(each for each in places if not each[1].pool)]:
        facts = comparison_facts(record)
        known, group = next((each for each in groups if _comparable(each[0], facts)), ({}, []))
        if not group:
            groups.append((facts, group))
        else:
            known["metrics"] |= facts["metrics"]
        group.append((place, record))
    return [[record for _, record in sorted(group, key=lambda each: each[0])] for _, group in groups]


def _comparable(known: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    metrics, others = known["metrics"], facts["metrics"]
    return (
        all(known[key] == facts[key] for key in ("dataset", "protocol"))
        and (not facts["candidate pool"] or known["candidate pool"] == facts["candidate pool"])
        and all(metrics.get(name, version) == version for name, version in others.items())
    )


def rows_of(records: Sequence[Record]) -> list[Row]:
    """One row per method. Records of the same name with other options, plug-ins or code form rows of their own, whose
    names say what differs."""
    by_name: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        name = f"{record.method} ({OLDER})" if record.older_identity else record.method
        by_name.setdefault(name, {}).setdefault(_variant(record), []).append(record)
    rows = []
    for name, variants in by_name.items():
        labels = _labels([group[0] for group in variants.values()])
        for label, group in zip(labels, variants.values(), strict=True):
            ordered = sorted(group, key=lambda record: record.seed)
            rows.append(Row(f"{name} ({label})" if label else name, tuple(ordered)))
    return rows


def training_cpu(record: Record) -> dict[str, float]:
    """`train_cpu_seconds`, the processor time of all threads in training, and `train_users_per_cpu_second`, which is
    `train_users_per_second` divided by the mean number of processors that training kept busy. Empty where the record
    lacks what they are computed from."""
    train = record.cost.get("phases", {}).get("train", {})
    seconds, cpu_seconds = train.get("seconds"), train.get("cpu_seconds")
    if not seconds or not cpu_seconds:
        return {}
    rate = record.cost.get("train_users_per_second")
    rates = {} if rate is None else {"train_users_per_cpu_second": rate * seconds / cpu_seconds}
    return {"train_cpu_seconds": cpu_seconds, **rates}


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are known; None where none is, infinite where their sum is too large."""
    known = [value for value in values if value is not None]
    try:
        return math.fsum(known) / len(known) if known else None
    except OverflowError:
        return math.inf


def flattened(facts: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings, and lists of mappings, as one mapping whose keys are joined with dots."""
    if isinstance(facts, list) and facts and all(isinstance(entry, Mapping) for entry in facts):
        facts = dict(enumerate(facts))
    if not isinstance(facts, Mapping):
        return {prefix: facts}
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat |= flattened(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def comparison_facts(record: Record) -> dict[str, Any]:
    """What must be equal in two records for their scores to be comparable; of the metrics, those that both have."""
    return {
        "dataset": record.dataset.get("digest") or record.dataset,
        "protocol": record.protocol,
        "candidate pool": record.pool,
        "metrics": {name: facts.get("version") for name, facts in record.metrics.items()},
    }


def differing_keys(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not equal in all mappings; nested ones are joined with dots."""
    flat = [flattened(entry) for entry in facts]
    keys = dict.fromkeys(key for entry in flat for key in entry)
    absent = object()
    differing = [key for key in keys if any(entry.get(key, absent) != flat[0].get(key, absent) for entry in flat)]
    return list(dict.fromkeys(key.removesuffix(".digest").removesuffix(".size") for key in differing))


def _variant(record: Record) -> str:
    return json.dumps(_without_seed(record), sort_keys=True)


def _without_seed(record: Record) -> dict[str, Any]:
    """The record's identity without its seed, the file of its rankings and its metrics, equal in all records of a row:
    each seed of rankings made elsewhere has a file of its own, and seeds may have been scored by further metrics."""
    identity, older = record.identity, record.older_identity
    outer = {key: value for key, value in identity.items() if key != "metrics" and not (older and key == "seed")}
    training = identity.get("training", {})
    return outer | {"training": {key: value for key, value in training.items() if key not in ("seed", "external")}}


def _labels(records: Sequence[Record]) -> list[str]:
    """A label for each record of one method name: its suite where these differ, else up to three differing options,
    else the start of its digest."""
    if len(records) == 1:
        return [""]
    if len({record.suite for record in records}) == len(records):
        return [record.suite for record in records]
    identities = [_without_seed(record) for record in records]
    flat = [flattened(identity) for identity in identities]
    keys = [key for key in differing_keys(identities) if any(key in entry for entry in flat)][:3]
    labels = []
    for record, entry in zip(records, flat, strict=True):
        parts = [f"{key.rpartition('.')[2]}={plain(entry.get(key))[:12]}" for key in keys]
        labels.append(", ".join(parts) or record.digest[:8])
    return labels if len(set(labels)) == len(labels) else [record.digest[:8] for record in records]
