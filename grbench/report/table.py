"""Tables from records alone: which records may stand side by side, one row a method, and what a reader must know.

Nothing here prints: `render.py` turns a `ResultTable` into text of one format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from grbench.report.format import GIB, count, label_of, number, plain, significant
from grbench.results.record import Record, latest

OLDER = "older identity"

Mark = Literal["", "best", "second"]

CSV_COSTS = ("train_tflops_per_second", "train_share_of_peak")
"""Costs that every row's numbers hold and no column shows: the table is wide enough."""


@dataclass(frozen=True)
class TableEntry:
    """One entry: the text, the interval's half width beside it, whether it is the column's best or second best."""

    text: str
    spread: str = ""
    mark: Mark = ""


@dataclass(frozen=True)
class Column:
    """A heading, and whether its entries are numbers; `metric` names the metric that the column shows."""

    title: str
    numeric: bool = True
    metric: str | None = None


@dataclass(frozen=True)
class ResultTable:
    """Rows that can be compared. `values` holds each row's unrounded numbers by plain name, for CSV."""

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[TableEntry, ...], ...]
    footer: tuple[str, ...]
    values: tuple[dict[str, Any], ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Row:
    """One method: its records over the seeds."""

    name: str
    records: tuple[Record, ...]

    @property
    def done(self) -> list[Record]:
        """The records with scores."""
        return [record for record in self.records if record.status == "ok"]

    @property
    def failed(self) -> list[Record]:
        """The records without."""
        return [record for record in self.records if record.status != "ok"]


def tables(records: Sequence[Record]) -> list[ResultTable]:
    """One table for each set of records that can be compared; the heading says what sets them apart."""
    groups = comparable(latest(records))
    apart = _differences([_comparability(group[0]) for group in groups])
    return [_table(group, apart, position, len(groups)) for position, group in enumerate(groups, 1)]


def comparable(records: Sequence[Record]) -> list[list[Record]]:
    """Groups records with one dataset digest, protocol, candidate pool and version of every metric, in order.

    A failed cell that never saw its pool stands with the first group that is otherwise the same.
    """
    groups: dict[str, list[Record]] = {}
    for record in [*(r for r in records if r.pool), *(r for r in records if not r.pool)]:
        facts = _comparability(record)
        if not record.pool:
            alike = (
                key
                for key, group in groups.items()
                if {**_comparability(group[0]), "candidate pool": None} == {**facts, "candidate pool": None}
            )
            key = next(alike, json.dumps(facts, sort_keys=True))
        else:
            key = json.dumps(facts, sort_keys=True)
        groups.setdefault(key, []).append(record)
    place = {record.digest: position for position, record in enumerate(records)}
    return [sorted(group, key=lambda record: place[record.digest]) for group in groups.values()]


def rows_of(records: Sequence[Record]) -> list[Row]:
    """One row a method. The same name with other options, plug-ins or code makes another row that says what differs."""
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


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and half the width of its 95 % interval (Student t over seeds); one value has no interval."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    from scipy.stats import t

    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, float(t.ppf(0.975, len(values) - 1)) * math.sqrt(variance / len(values))


def hardware(record: Record) -> str:
    """The machine that a record's costs were measured on, in one line."""
    facts = record.environment
    parts = [str(facts.get("cpu") or "unknown CPU")]
    if facts.get("cpu_threads"):
        parts.append(f"{facts['cpu_threads']} threads")
    if facts.get("ram_bytes"):
        parts.append(f"{facts['ram_bytes'] / GIB:.0f} GiB RAM")
    parts.append(str(facts.get("gpu") or "no GPU used"))
    return ", ".join(parts)


def _table(records: list[Record], apart: list[str], position: int, total: int) -> ResultTable:
    rows = rows_of(records)
    first = next((record for record in records if record.status == "ok"), records[0])
    machines = list(dict.fromkeys(hardware(record) for record in records if record.status == "ok"))
    letters = {machine: chr(ord("a") + index % 26) for index, machine in enumerate(machines)}
    metrics = list(first.metrics)
    costs = _cost_columns(records)
    failing = any(row.failed for row in rows)

    columns = [Column("method", numeric=False)]
    columns += [Column(_heading(name, first.metrics[name]), metric=name) for name in metrics]
    columns += [Column(title) for title, *_ in costs]
    columns += [Column("seeds")]
    columns += [Column("hardware", numeric=False)] * (len(machines) > 1)
    columns += [Column("failed", numeric=False)] * failing

    marks = {name: _marks(rows, name, bool(first.metrics[name].get("higher_is_better", True))) for name in metrics}
    body, values = [], []
    for index, row in enumerate(rows):
        used = list(dict.fromkeys(hardware(record) for record in row.done))
        numbers = {"method": row.name, "seeds": len(row.done), "seeds_planned": len(row.records)}
        entries = [TableEntry(row.name)]
        for name in metrics:
            mean, spread = _score(row, name)
            entries.append(TableEntry(number(mean), "" if spread is None else number(spread), marks[name][index]))
            numbers |= {name: mean, f"{name} ±": spread}
        for _, name, show, combine in costs:
            cost = combine([record.cost.get(name, record.counts.get(name)) for record in row.done])
            # A mean over two machines would be a number that no machine has.
            entries.append(TableEntry("mixed" if len(used) > 1 else show(cost)))
            numbers[name] = None if len(used) > 1 else cost
        for name in CSV_COSTS:
            numbers[name] = None if len(used) > 1 else _mean([record.cost.get(name) for record in row.done])
        entries.append(TableEntry(_seeds(row)))
        if len(machines) > 1:
            entries.append(TableEntry(", ".join(letters[machine] for machine in used) or "—"))
        if failing:
            entries.append(TableEntry(_reasons(row)))
        numbers |= {"hardware": "; ".join(used), "failed": _reasons(row)}
        body.append(tuple(entries))
        values.append(numbers)
    return ResultTable(
        heading=_title(first, apart, position, total),
        columns=tuple(columns),
        rows=tuple(body),
        footer=tuple(_footer(records, first, letters)),
        values=tuple(values),
    )


def _heading(name: str, facts: Mapping[str, Any]) -> str:
    arrow = "↑" if facts.get("higher_is_better", True) else "↓"
    return f"{facts.get('label') or label_of(name)} {arrow}"


def _score(row: Row, metric: str) -> tuple[float | None, float | None]:
    found = [record.scores.get(metric) for record in row.done]
    values = [value for value in found if value is not None]
    return mean_and_spread(values) if values else (None, None)


def _marks(rows: Sequence[Row], metric: str, higher_is_better: bool) -> list[Mark]:
    """What looks equal is marked equally: means are compared as printed."""
    means = [_score(row, metric)[0] for row in rows]
    shown = [None if mean is None else round(mean, 4) for mean in means]
    ranked = sorted({mean for mean in shown if mean is not None}, reverse=higher_is_better)
    if len([mean for mean in shown if mean is not None]) < 2:
        return [""] * len(rows)
    best, second = ranked[0], ranked[1] if len(ranked) > 1 else None
    return ["" if mean is None else "best" if mean == best else "second" if mean == second else "" for mean in shown]


Combine = Callable[[Sequence[float | None]], float | None]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _cost_columns(records: Sequence[Record]) -> list[tuple[str, str, Callable[[float | None], str], Combine]]:
    """Title, the record's cost entry, how it is shown, how seeds combine."""
    on_gpu = any(record.cost.get("peak_gpu_bytes") for record in records)
    memory = ("GPU GiB", "peak_gpu_bytes") if on_gpu else ("RAM GiB", "peak_process_bytes")
    return [
        ("train min", "train_seconds", lambda seconds: significant(None if seconds is None else seconds / 60), _mean),
        ("users/s", "train_users_per_second", significant, _mean),
        (*memory, lambda size: significant(None if size is None else size / GIB), _largest),
        ("search q/s", "search_queries_per_second", significant, _mean),
        ("p99 ms", "search_p99_ms", significant, _mean),
        ("params", "parameters", count, _mean),
    ]


def _seeds(row: Row) -> str:
    return str(len(row.done)) if not row.failed else f"{len(row.done)} of {len(row.records)}"


def _reasons(row: Row) -> str:
    """`oom, seed 1: CUDA out of memory`, once a reason."""
    seeds: dict[str, list[str]] = {}
    for record in row.failed:
        message = (record.error or {}).get("message", "").strip().partition("\n")[0]
        seeds.setdefault(f"{record.status}\0{message}", []).append(str(record.seed))
    lines = []
    for reason, which in seeds.items():
        status, _, message = reason.partition("\0")
        lines.append(f"{status}, seed {', '.join(which)}" + (f": {message}" if message else ""))
    return "; ".join(lines)


def _title(first: Record, apart: list[str], position: int, total: int) -> str:
    name = f"{first.suite}: {first.title}" if first.title else first.suite
    if total == 1:
        return name
    differing = ", ".join(apart) or "their facts"
    return f"{name}, table {position} of {total}, not comparable with the others ({differing} differ)"


def _footer(records: Sequence[Record], first: Record, letters: Mapping[str, str]) -> list[str]:
    lines = [f"Dataset: {_described(first.dataset)}", f"Protocol: {_described(first.protocol)}"]
    counts = first.counts
    if "evaluated" in counts:
        dropped = {reason: users for reason, users in counts.get("dropped", {}).items() if users}
        reasons = ", ".join(f"{users:,} {reason.replace('_', ' ')}" for reason, users in dropped.items()) or "none"
        lines.append(f"Users: {counts['evaluated']:,} evaluated; dropped: {reasons}")
    if first.pool:
        pool = f"{first.pool['size']:,} candidates (digest {first.pool['digest']})"
        lines.append(f"Pool: {pool}; ties count against the target")
    if len(letters) > 1:
        named = "; ".join(f"[{letter}] {machine}" for machine, letter in letters.items())
        lines.append(f"Hardware differs, compare costs only within a letter: {named}")
    elif letters:
        lines.append(f"Hardware: {next(iter(letters))}")
    batch = first.cost.get("phases", {}).get("search", {}).get("batch_size")
    if any(record.older_identity for record in records):
        lines.append(f"{OLDER.capitalize()}: of an earlier grbench, whose digests covered less; it would be run again")
    repeated = any(len(row.done) > 1 for row in rows_of(records))
    lines.append(
        "Scores are means over users"
        + (", then seeds, ± their 95 % interval (Student t)" if repeated else " of one seed, so without interval")
        + "; best bold, second underlined. Costs are means over seeds, memory the largest"
        + (f", p99 that of a batch of {batch:,} queries." if batch else ".")
    )
    return lines


def _described(facts: Mapping[str, Any]) -> str:
    switches = {key: value for key, value in flattened(facts).items() if key not in ("name", "digest")}
    digest = f" (digest {facts['digest']})" if facts.get("digest") else ""
    listed = ", ".join(f"{key.removeprefix('options.')}={plain(value)}" for key, value in switches.items())
    return f"{facts.get('name', 'unknown')}{digest}" + (f"; {listed}" if listed else "")


def flattened(facts: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings, and lists of them, as one; keys joined with dots."""
    if isinstance(facts, list) and facts and all(isinstance(entry, Mapping) for entry in facts):
        facts = dict(enumerate(facts))
    if not isinstance(facts, Mapping):
        return {prefix: facts}
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat |= flattened(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _comparability(record: Record) -> dict[str, Any]:
    return {
        "dataset": record.dataset.get("digest") or record.dataset,
        "protocol": record.protocol,
        "candidate pool": record.pool,
        "metrics": {name: facts.get("version") for name, facts in record.metrics.items()},
    }


def _differences(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys on which not all agree, nested ones joined with dots."""
    flat = [flattened(entry) for entry in facts]
    keys = dict.fromkeys(key for entry in flat for key in entry)
    absent = object()
    differing = [key for key in keys if any(entry.get(key, absent) != flat[0].get(key, absent) for entry in flat)]
    return list(dict.fromkeys(key.removesuffix(".digest").removesuffix(".size") for key in differing))


def _variant(record: Record) -> str:
    return json.dumps(_without_seed(record), sort_keys=True)


def _without_seed(record: Record) -> dict[str, Any]:
    """The identity of all cells of a row, which differ by their seeds alone."""
    identity, older = record.identity, record.older_identity
    outer = {key: value for key, value in identity.items() if not (older and key == "seed")}
    return outer | {"training": {key: value for key, value in identity.get("training", {}).items() if key != "seed"}}


def _labels(records: Sequence[Record]) -> list[str]:
    """What tells rows of one name apart: the suite, or else up to three options, or else their code."""
    if len(records) == 1:
        return [""]
    if len({record.suite for record in records}) == len(records):
        return [record.suite for record in records]
    identities = [_without_seed(record) for record in records]
    flat = [flattened(identity) for identity in identities]
    told = [key for key in _differences(identities) if any(key in entry for entry in flat)][:3]
    labels = []
    for record, entry in zip(records, flat, strict=True):
        parts = [f"{key.rpartition('.')[2]}={plain(entry.get(key))[:12]}" for key in told]
        labels.append(", ".join(parts) or record.digest[:8])
    return labels if len(set(labels)) == len(labels) else [record.digest[:8] for record in records]
