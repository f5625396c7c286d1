"""The columns of result tables: each function makes some of them, with every row's entries and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grbench.report.costs import CSV_COSTS, cost_kinds, machines_of, row_cost
from grbench.report.entries import DOWN, UP, Column, TableEntry
from grbench.report.format import label_of, number
from grbench.report.provenance import ran_beside
from grbench.report.published import BesideOurs, Sources, published_numbers, published_text
from grbench.report.rows import Row
from grbench.report.scores import RowScore
from grbench.results.record import Record

FAILED = "failed"
"""The column with the reasons why cells failed."""
NOT_TOLD_FROM_BASELINE = "°"
"""Beside a score whose difference from the baseline's is not significant."""
RENAMED_FROM = "renamed from"
"""In CSV: a row's name in its records, where it is shown under another one."""
EXTERNAL = "‡"
"""Beside a method whose lists were made elsewhere."""


@dataclass(frozen=True)
class Columns:
    """columns: the headings; entries: for each row, its text under each heading; numbers: for each row, its unrounded
    values by name, for CSV."""

    columns: Sequence[Column]
    entries: Sequence[Sequence[TableEntry]]
    numbers: Sequence[Mapping[str, Any]]


def name_column(rows: Sequence[Row]) -> Columns:
    """The methods."""
    return Columns(
        [Column("method", numeric=False, name="method", values=("method", RENAMED_FROM, "external"))],
        [[TableEntry(row.name, mark=f" {EXTERNAL}" if row.external else "")] for row in rows],
        [
            {"method": row.name, "seeds": len(row.done), "seeds_planned": len(row.records)}
            | ({RENAMED_FROM: row.in_records} if row.in_records else {})
            for row in rows
        ],
    )


def metric_columns(
    name: str,
    facts: Mapping[str, Any],
    scores: Sequence[RowScore],
    published: Sequence[BesideOurs | None] | None,
    sources: Sources,
) -> Columns:
    """A metric, and what is published of it. scores, published: of each row, the latter None where no row has any."""
    entries = [[score_entry(score)] for score in scores]
    numbers = [_score_numbers(name, score) for score in scores]
    columns = [metric_column(name, facts, tuple(dict.fromkeys(key for row in numbers for key in row)))]
    if published is not None:
        of_figures = [published_numbers(name, beside) for beside in published]
        values = tuple(dict.fromkeys(key for row in of_figures for key in row))
        title = f"published {metric_label(name, facts)}"
        columns.append(Column(title, numeric=False, name=f"{name} published", values=values))
        for row, beside in enumerate(published):
            entries[row].append(TableEntry(published_text(beside, sources)))
            numbers[row] |= of_figures[row]
    return Columns(columns, entries, numbers)


def filter_columns(rows: Sequence[Row]) -> Columns:
    """The rows' filters, and the targets that these leave out, where there are any."""
    filters, missed = [filters_text(row) for row in rows], [unreachable_targets(row) for row in rows]
    columns: list[Column] = []
    entries: list[list[TableEntry]] = [[] for _ in rows]
    if any(filters):
        columns.append(Column("filters", numeric=False, name="filters", values=("filters",)))
        for row, text in enumerate(filters):
            entries[row].append(TableEntry(text or "—"))
    if any(missed):
        columns.append(Column("unreachable", name="unreachable", values=("unreachable",)))
        for row, targets in enumerate(missed):
            entries[row].append(TableEntry("—" if targets is None else f"{targets:,}"))
    numbers = [{"filters": text, "unreachable": targets} for text, targets in zip(filters, missed, strict=True)]
    return Columns(columns, entries, numbers)


def cost_columns(rows: Sequence[Row], records: Sequence[Record]) -> Columns:
    """What the rows cost. Costs of different machines, and of cells that ran alone or beside others, are not averaged.
    records: of all rows, by which the columns are chosen."""
    kinds = cost_kinds(records)
    entries, numbers = [], []
    for row in rows:
        shown, values = list[TableEntry](), dict[str, Any]()
        for kind in kinds:
            cost = row_cost(row, kind.name, kind.combine)
            shown.append(TableEntry("mixed" if cost.mixed else kind.text(cost.value), mark=cost.mark))
            values[kind.name] = cost.value
        values |= {name: row_cost(row, name).value for name in CSV_COSTS}
        values["ran_beside"] = bool(row.done) and all(map(ran_beside, row.done))
        entries.append(shown)
        numbers.append(values)
    columns = [Column(kind.title, name=kind.name, values=(kind.name, "ran_beside")) for kind in kinds]
    return Columns(columns, entries, numbers)


def run_columns(rows: Sequence[Row], letters: Mapping[str, str]) -> Columns:
    """How many seeds there are, on which machine, and why others failed. letters: {machine: what stands for it}."""
    columns = [Column("seeds", name="seeds", values=("seeds", "seeds_planned"))]
    entries = [[TableEntry(seeds_text(row))] for row in rows]
    if len(letters) > 1:
        columns.append(Column("hardware", numeric=False, name="hardware", values=("hardware",)))
        for row, shown in zip(rows, entries, strict=True):
            shown.append(TableEntry(", ".join(letters[machine] for machine in machines_of(row)) or "—"))
    if any(row.failed for row in rows):
        columns.append(Column("failed", numeric=False, name=FAILED, values=(FAILED,)))
        for row, shown in zip(rows, entries, strict=True):
            shown.append(TableEntry(failure_text(row)))
    numbers: list[dict[str, Any]] = [
        {"hardware": "; ".join(machines_of(row)), FAILED: failure_text(row)} for row in rows
    ]
    if any(row.external for row in rows):
        for row, values in zip(rows, numbers, strict=True):
            values["external"] = external_text(row)
    return Columns(columns, entries, numbers)


def score_entry(score: RowScore) -> TableEntry:
    """A score as it is shown."""
    width, versus = score.half_width, score.versus_baseline
    mark = NOT_TOLD_FROM_BASELINE if versus is not None and not versus.differs else ""
    return TableEntry(number(score.mean), "" if width is None else number(width), score.best, mark)


def _score_numbers(name: str, score: RowScore) -> dict[str, Any]:
    numbers = {name: score.mean, f"{name} ±": score.half_width}
    if (versus := score.versus_baseline) is not None:
        numbers |= {
            f"{name} - baseline": versus.difference.value,
            f"{name} - baseline ±": versus.difference.half_width(),
            f"{name} p": versus.p,
        }
    return numbers


def external_text(row: Row) -> str:
    """Which files its lists are from, and what is known of them; empty for a row that was run here."""
    texts = []
    for record in row.done:
        facts = record.external or {}
        if facts:
            missing = facts.get("users_without_list")
            parts = [
                f"{facts['file']} (sha256 {facts['sha256'][:12]})",
                *[f"{missing:,} users without a list count as missed"] * bool(missing),
                *[facts["note"]] * bool(facts["note"]),
            ]
            texts.append(", ".join(parts))
    return "; ".join(texts)


def filters_text(row: Row) -> str:
    """The filters of the row's lists, which are part of its identity, as in the suite."""
    identity = row.records[0].identity
    return ", ".join(identity.get("ranking", identity).get("filters") or ())


def unreachable_targets(row: Row) -> int | None:
    """Targets that the row's filters leave out of its lists; None without filters, or where a record does not know."""
    counts = [(record.counts.get("unreachable") or {}).get("any") for record in row.done]
    return max((count for count in counts if count is not None), default=None)


def metric_column(name: str, facts: Mapping[str, Any], values: tuple[str, ...]) -> Column:
    """The column of a metric. values: names of its unrounded values."""
    higher = bool(facts.get("higher_is_better", True))
    return Column(metric_heading(name, facts), metric=name, name=name, values=values, higher_is_better=higher)


def metric_heading(name: str, facts: Mapping[str, Any]) -> str:
    """A metric's column: its label, and an arrow in the direction of better values."""
    return f"{metric_label(name, facts)} {UP if facts.get('higher_is_better', True) else DOWN}"


def metric_label(name: str, facts: Mapping[str, Any]) -> str:
    """A metric's name in tables."""
    return str(facts.get("label") or label_of(name))


def seeds_text(row: Row) -> str:
    """How many seeds a row has, and of how many."""
    return str(len(row.done)) if not row.failed else f"{len(row.done)} of {len(row.records)}"


def failure_text(row: Row) -> str:
    """Each status and message once, with its seeds: `oom, seed 1, 2: CUDA out of memory`."""
    seeds: dict[str, list[str]] = {}
    for record in row.failed:
        message = (record.error or {}).get("message", "").strip().partition("\n")[0]
        seeds.setdefault(f"{record.status}\0{message}", []).append(str(record.seed))
    lines = []
    for reason, which in seeds.items():
        status, _, message = reason.partition("\0")
        lines.append(f"{status}, seed {', '.join(which)}" + (f": {message}" if message else ""))
    return "; ".join(lines)
