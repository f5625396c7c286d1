"""What tables say of validation: rows of grids, of which one each is chosen by it, and methods whose options were
tuned."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grbench.report.columns import Columns, metric_heading, metric_label
from grbench.report.entries import Column, TableEntry
from grbench.report.format import counted, duration, number
from grbench.report.rows import Row, comparable_groups, rows_of
from grbench.results.record import Record
from grbench.results.record_files import latest


@dataclass(frozen=True)
class Choice:
    """metrics: those of validation that have a column; hidden: places of rows whose test scores are not shown, because
    they were not chosen; tuned: whether a method was; notes: lines of the footer."""

    metrics: tuple[str, ...] = ()
    hidden: frozenset[int] = frozenset()
    tuned: bool = False
    notes: tuple[str, ...] = ()


def selection_metric(record: Record) -> str | None:
    """The metric by which the record's training selected its best state; None without validation."""
    stages = record.identity.get("training", {}).get("stages") or [{}]
    options = stages[-1].get("training", {})
    return options.get("select") if options.get("validate_every") else None


def validation_score(row: Row, metric: str, seeds: Sequence[int] | None = None) -> float | None:
    """The mean validation score of the row's cells, of these seeds; None where no cell has one."""
    scores = [
        record.validation[metric]
        for record in row.done
        if metric in record.validation and (seeds is None or record.seed in seeds)
    ]
    return math.fsum(scores) / len(scores) if scores else None


def choice(rows: Sequence[Row]) -> Choice:
    """What the rows of a table show of validation. Nothing where there is neither a grid to choose from nor a tuned
    method."""
    grids: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        grid = row.records[0].grid
        if grid is not None and not grid["ablation"]:
            grids.setdefault((row.records[0].suite, grid["name"]), []).append(place)
    hidden, notes = set[int](), list[str]()
    for (_, name), places in grids.items():
        chosen, note = _chosen_row(name, [rows[place] for place in places])
        hidden |= {place for position, place in enumerate(places) if chosen not in (position, ALL)}
        notes.append(note)
    tuned = [(row, row.records[0].tuning) for row in rows if row.records[0].tuning]
    notes += [_tuning_note(row, facts) for row, facts in tuned if facts]
    if not grids and not tuned:
        return Choice()
    if tuned:
        notes.append(_budget_note(rows))
    shown = [record for row in rows for record in row.done if record.validation]
    metrics = dict.fromkeys(metric for record in shown if (metric := selection_metric(record)) in record.validation)
    metrics |= dict.fromkeys(facts["metric"] for _, facts in tuned if facts)
    notes += [_validation_note(shown[0])] if shown else []
    return Choice(tuple(str(metric) for metric in metrics), frozenset(hidden), bool(tuned), tuple(filter(None, notes)))


def hidden_records(records: Sequence[Record]) -> frozenset[tuple[str, str, str]]:
    """`place_key` of the records whose test scores tables do not show."""
    hidden = set[tuple[str, str, str]]()
    for group in comparable_groups(latest(records)):
        rows = rows_of(group)
        hidden |= {place_key(record) for place in choice(rows).hidden for record in rows[place].records}
    return frozenset(hidden)


def place_key(record: Record) -> tuple[str, str, str]:
    """(suite, method, digest) of a record of `latest`, in which a digest may have several methods."""
    return record.suite, record.method, record.digest


def validation_columns(rows: Sequence[Row], chosen: Choice, metrics: Mapping[str, Mapping[str, Any]]) -> Columns:
    """What the rows show of validation: scores, numbers of trials, and in CSV the values that were chosen. metrics:
    {name: the records' facts about it}."""
    columns = [_validation_column(name, metrics.get(name, {})) for name in chosen.metrics]
    columns += [Column("trials", name="trials", values=("trials", "chosen"))] * chosen.tuned
    entries, numbers = list[list[TableEntry]](), list[dict[str, Any]]()
    for row in rows:
        scores = {name: validation_score(row, name) for name in chosen.metrics}
        shown = [TableEntry(number(score)) for score in scores.values()]
        values: dict[str, Any] = {f"validation {name}": score for name, score in scores.items()}
        if chosen.tuned:
            tuning = row.records[0].tuning or {}
            trials = tuning.get("trials")
            shown.append(TableEntry("—" if trials is None else str(trials)))
            values |= {"trials": trials, "chosen": json.dumps(tuning["values"]) if tuning else None}
        entries.append(shown)
        numbers.append(values)
    return Columns(columns, entries, numbers)


def _validation_column(name: str, facts: Mapping[str, Any]) -> Column:
    called = f"validation {name}"
    higher = bool(facts.get("higher_is_better", True))
    return Column(f"val {metric_heading(name, facts)}", name=called, values=(called,), higher_is_better=higher)


ALL = -1
"""In place of a chosen row: the test scores of all are shown."""


def _chosen_row(name: str, rows: Sequence[Row]) -> tuple[int | None, str]:
    """The place of the row that is chosen of a grid, ALL, or None where none is chosen yet; and what the footer says of
    it."""
    points = rows[0].records[0].grid or {}
    metric = next((found for row in rows for record in row.done if (found := selection_metric(record))), None)
    # Of a row that was run with other options or sources before, there are several: it is one of the grid's.
    ended = {row.records[0].method for row in rows if any(record.status != "interrupted" for record in row.records)}
    if metric is None:
        if not any(row.done for row in rows):
            return None, ""
        return ALL, (
            f"Grid {name}: without validation, so none of its rows can be chosen, and all show test scores, as an "
            "ablation does. In the suite, ablation: true says that it is one, and validate_every chooses by validation"
        )
    if len(ended) < points.get("points", 0):
        return None, (
            f"Grid {name}: {len(ended)} of its {points['points']} rows have run; once all have, the one with the best "
            "validation shows its test scores"
        )
    able = {place: row for place, row in enumerate(rows) if validation_score(row, metric) is not None}
    seeds = set.intersection(*({record.seed for record in row.done} for row in able.values())) if able else set()
    scores = {place: validation_score(row, metric, sorted(seeds)) for place, row in able.items()}
    known = {place: score for place, score in scores.items() if score is not None}
    if not known:
        return None, f"Grid {name}: no seed has run in all of its rows, so none is chosen yet"
    facts = rows[0].records[0].metrics.get(metric, {})
    sign = 1 if facts.get("higher_is_better", True) else -1
    chosen = max(known, key=lambda place: (sign * known[place], -place))
    return chosen, (
        f"Grid {name}: {rows[chosen].name} is chosen of {counted(len(rows), 'row')} by "
        f"{_label(rows[0].records[0], metric)} of validation, mean over seeds; the others' test scores are not shown"
    )


def _tuning_note(row: Row, facts: dict[str, Any]) -> str:
    kinds = ", ".join(f"{facts[kind]} {kind}" for kind in ("complete", "pruned", "failed") if facts.get(kind))
    how = [str(facts["sampler"]), *(["pruned by the median"] if facts["pruner"] == "median" else [])]
    line = (
        f"Tuned: {row.name}: {counted(facts['trials'], 'trial')} ({kinds}), {', '.join(how)}, "
        f"{duration(facts['seconds'])} of training"
    )
    if facts["values"]:
        values = ", ".join(f"{key}={_value(value)}" for key, value in facts["values"].items())
        score = f"{_label(row.records[0], facts['metric'])} of validation {number(facts['validation'])}"
        line += f"; chosen: trial {facts['number'] + 1}, {score}: {values}"
    if reasons := facts["not_repeatable"]:
        line += f"; not repeatable, because {' and '.join(reasons)}"
    return line


def _budget_note(rows: Sequence[Row]) -> str:
    facts = [row.records[0].tuning for row in rows]
    budgets = {json.dumps(each["budget"], sort_keys=True): each["budget"] for each in facts if each}
    texts = [
        counted(budget["trials"], "trial")
        if "trials" in budget
        else f"{duration(budget.get('training_seconds'))} of training"
        for budget in budgets.values()
    ]
    untuned = [row.name for row in rows if not row.records[0].tuning]
    line = f"Budget of each tuned method: {texts[0]}" if len(texts) == 1 else f"Budgets differ: {' and '.join(texts)}"
    return f"{line}; chosen on validation only, with the first seed" + (
        f"; not tuned: {', '.join(untuned)}" if untuned else ""
    )


def _validation_note(record: Record) -> str:
    """Who validates: users of their own, or those who are tested, by an earlier event."""
    held_out, tested = record.counts.get("validation_users"), record.counts.get("validation_also_tested")
    if not held_out or tested is None:
        return ""
    scored = record.counts.get("validated_users") or held_out
    users = f"{held_out:,} users" if scored == held_out else f"{scored:,} of {held_out:,} users"
    sample = "" if scored == held_out else ", a random sample"
    if tested == 0:
        return f"Validation: {users} of their own{sample}; they are taken from the training users"
    if tested == held_out:
        return f"Validation: {users}{sample}, each by an event before the one of the test"
    return f"Validation: {users}{sample}; {tested:,} are tested too, by a later event"


def _label(record: Record, metric: str) -> str:
    return metric_label(metric, record.metrics.get(metric, {}))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
