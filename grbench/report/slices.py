"""Scores within the groups that a slice divides the evaluated users into, computed from records.

Shapes: S seeds, U users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from grbench.errors import RunError, cut
from grbench.registry.options import suggestion
from grbench.report.columns import RENAMED_FROM, metric_heading, score_entry, seeds_text
from grbench.report.compared import ComparedRows, compared_groups
from grbench.report.entries import Column, ResultTable, TableEntry
from grbench.report.footer import explained, facts_line, of_all_lists
from grbench.report.format import counted
from grbench.report.rows import Row, comparable_groups
from grbench.report.scores import RowScore, column_scores, recorded_means, user_scores
from grbench.report.table import heading_of
from grbench.report.view import EVERYTHING, View
from grbench.report.view_notes import view_notes
from grbench.results.record import Record
from grbench.results.record_files import latest, ranking_path
from grbench.results.slices import Grouping, read_slices
from grbench.statistics.scores import Scores

ALL = "all"
"""The column of all users."""

NO_VARIANCE = "A group of one user, and one whose users all have the same value, has no interval"


def slice_tables(
    records: Sequence[Record], name: str, metric: str | None = None, view: View = EVERYTHING
) -> list[ResultTable]:
    """Tables of the rows' scores within each group of users by the slice `name`, one for each group of comparable
    records. metric: None = the first one of the records.

    Raises RunError where no record has the metric, or users' values of it, or groups by this slice, and where the view
    names a row or a column that there is not.
    """
    known = [record for record in latest(records) if record.metrics]
    metrics = list(dict.fromkeys(each for record in known for each in record.metrics))
    together = {each for record in known for each, facts in record.metrics.items() if of_all_lists(facts)}
    if metric is None:
        metric = next((each for each in metrics if each not in together), None)
    if metric not in metrics:
        raise RunError(
            f"--metric {cut(str(metric))}: the records have no such metric; {suggestion(str(metric), metrics)}"
        )
    if metric in together:
        raise RunError(f"--metric {metric}: is of all lists together, so that it is not divided into groups of users")
    groups = [group for group in comparable_groups(known) if any(metric in record.metrics for record in group)]
    found = compared_groups(groups)
    view.check([row for each in found for row in each.rows], {})
    tables, columns, left_out = list[ResultTable](), list[Column](), list[RunError]()
    for each in found:
        try:
            title = heading_of(view, each.title, len(found))
            whole, shown = _table(each.named(view), name, metric, title, view)
            tables.append(shown.printable())
            columns += whole.printable().columns
        except RunError as error:  # such as records of an earlier grbench beside newer ones
            left_out.append(error)
    if not tables:
        raise left_out[0]
    view.check_columns(columns)
    notes = tuple(f"A table is left out: {error}" for error in left_out)
    return [*tables[:-1], replace(tables[-1], footer=(*tables[-1].footer, *notes))]


def _table(compared: ComparedRows, name: str, metric: str, title: str, view: View) -> tuple[ResultTable, ResultTable]:
    """(the shown rows with all columns, the same with the shown ones). compared: under the names of the view."""
    every, chosen = compared.rows, compared.chosen
    rows = [row for place, row in enumerate(every) if place not in chosen.hidden]
    places = view.places(rows)
    if not places:
        raise RunError("; ".join(chosen.notes) or f"{title} has none of the rows that --rows names")
    with_metric = [record for record in compared.records if metric in record.metrics]
    first = next((record for record in with_metric if record.status == "ok"), with_metric[0])
    sliced = sliced_scores(rows, name, metric, first)
    columns, sizes = sliced.columns, sliced.sizes
    higher = bool(first.metrics[metric].get("higher_is_better", True))
    entries, values = [], []
    for row in (rows[place] for place in places):
        shown = {group: column[rows.index(row)] for group, column in columns.items()}
        entries.append((TableEntry(row.name), *map(score_entry, shown.values()), TableEntry(seeds_text(row))))
        values.append(
            {"method": row.name, "metric": metric, "slice": name, **_numbers(shown, sizes), "seeds": len(row.done)}
            | ({RENAMED_FROM: row.in_records} if row.in_records else {})
        )
    whole = ResultTable(
        heading=f"{title}: {metric_heading(metric, first.metrics[metric])} by {name}",
        columns=(
            Column("method", numeric=False, name="method", values=("method", RENAMED_FROM, "metric", "slice")),
            *(_group_column(group, size, metric, higher) for group, size in sizes.items()),
            Column("seeds", name="seeds", values=("seeds",)),
        ),
        rows=tuple(entries),
        footer=(),
        values=tuple(values),
    )
    table = view.of_table(whole)
    of_groups = {column.name: columns[column.name] for column in table.columns if column.name in columns}
    return whole, replace(
        table,
        footer=(
            f"Dataset: {facts_line(first.dataset)}",
            f"Protocol: {facts_line(first.protocol)}",
            groups_text(name, sliced.grouping),
            explained({metric: [column[place] for column in of_groups.values() for place in places]}, first)
            + "; each column is tested by itself",
            NO_VARIANCE,
            *view_notes(whole, table, rows, places, of_groups),
            *(chosen.notes if chosen.hidden else ()),
        ),
    )


def _group_column(group: str, size: int, metric: str, higher_is_better: bool) -> Column:
    """A group's column; it may be chosen without the number of its users."""
    values = (group, f"{group} ±", f"{group} users", f"{group} - baseline", f"{group} p")
    return Column(f"{group} ({size:,})", metric=metric, name=group, values=values, higher_is_better=higher_is_better)


@dataclass(frozen=True)
class SlicedScores:
    """columns: {ALL or a group: each row's score within it}; sizes: {ALL or a group: its number of users}."""

    grouping: Grouping
    columns: Mapping[str, Sequence[RowScore]]
    sizes: Mapping[str, int]


def sliced_scores(rows: Sequence[Row], name: str, metric: str, first: Record) -> SlicedScores:
    """The rows' scores within each group of users by the slice `name`. first: a record with the facts that all share.
    Raises RunError where no row has users' values of the metric, or groups by this slice."""
    _, known = user_scores(rows, [metric])
    scores = known[metric]
    if not scores:
        raise without_values([record for row in rows for record in row.records], metric)
    grouping = grouping_of([row for row in rows if row.name in scores], name)
    members = grouping.members()
    higher = bool(first.metrics[metric].get("higher_is_better", True))
    columns = {
        ALL: column_scores(rows, recorded_means(rows, metric), scores, higher_is_better=higher, baseline=first.baseline)
    }
    for group, users in members.items():
        columns[group] = group_scores(rows, scores, users, higher_is_better=higher, baseline=first.baseline)
    return SlicedScores(
        grouping, columns, {ALL: len(grouping.codes), **{group: len(users) for group, users in members.items()}}
    )


def _numbers(shown: Mapping[str, RowScore], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Unrounded numbers of a row's groups by name, for CSV."""
    numbers: dict[str, Any] = {}
    for group, score in shown.items():
        numbers |= {group: score.mean, f"{group} ±": score.half_width, f"{group} users": sizes[group]}
        if (versus := score.versus_baseline) is not None:
            numbers |= {f"{group} - baseline": versus.difference.value, f"{group} p": versus.p}
    return numbers


def group_scores(
    rows: Sequence[Row],
    known: Mapping[str, Scores],
    users: np.ndarray,
    *,
    higher_is_better: bool,
    baseline: str | None,
) -> list[RowScore]:
    """The scores of all rows within a group of users (indices [n] into the columns of the known Scores). Rows whose
    users' values are not known have none, and nothing is marked where there is such a row: it may be the best."""
    within = {row: of_users(scores, users) for row, scores in known.items()}
    means = [within[row.name].mean if row.name in within else None for row in rows]
    found = column_scores(rows, means, within, higher_is_better=higher_is_better, baseline=baseline)
    complete = all(row.name in known for row in rows if row.done) and len(users) > 1
    if not complete:
        found = [replace(score, best=False, versus_baseline=None) for score in found]
    return [
        replace(score, estimate=None) if row.name in within and not varies(within[row.name]) else score
        for row, score in zip(rows, found, strict=True)
    ]


def of_users(scores: Scores, users: np.ndarray) -> Scores:
    """The scores of some users. users: [n], indices into the columns."""
    return Scores(scores.values[:, users])


def varies(scores: Scores) -> bool:
    """Whether there are users with different values, without which nothing is known of how much others vary."""
    return bool((scores.by_user != scores.by_user[0]).any())


def grouping_of(rows: Sequence[Row], name: str) -> Grouping:
    """The groups by the slice `name` of the users of these rows, who are the same in the same order. Groups depend on
    no list, so that one record with them is enough. Raises RunError where none has them, or two do not agree."""
    records = [record for row in rows for record in row.done]
    of_files = {path: read_slices(path, [name]) for path in map(_path, records)}
    found = [(path, slices[name]) for path, slices in of_files.items() if name in slices]
    if not found:
        raise _without_groups(records, name)
    (path, grouping), *others = found
    for other, its in others:
        if its.groups != grouping.groups or not np.array_equal(its.codes, grouping.codes):
            raise RunError(
                f"{path} and {other}: their users' groups by the slice {name} differ, so that one of them is of other "
                f"options or another version of it; grbench rescore {other.parent} --slice {name} writes them anew"
            )
    return grouping


def recorded_slices(records: Sequence[Record]) -> list[str]:
    """The slices that any of these records, which have lists, has groups by."""
    return list(dict.fromkeys(each for record in records for each in read_slices(_path(record))))


def _path(record: Record) -> Path:
    """The lists of a record that has some."""
    assert record.folder is not None
    return ranking_path(record.folder, record.digest)


def _without_groups(records: Sequence[Record], name: str) -> RunError:
    """Why no record has groups by the slice `name`."""
    folder = _path(records[0]).parent
    for record in records:
        if reason := (record.lists.get("unlabelled") or {}).get(name):
            return RunError(
                f"{folder}: the slice {name} failed when {record.method}, seed {record.seed}, was run: {reason}"
            )
    if known := recorded_slices(records):
        return RunError(
            f"{folder}: the records have no groups by a slice {cut(repr(name))}; {suggestion(name, known)} (grbench "
            f"rescore {folder} --slice NAME adds the groups by another one)"
        )
    return RunError(
        f"{folder}: the records have no groups of users by any slice (they were written by an earlier grbench, or the "
        f"suite has slices: []); grbench rescore {folder} --slice {cut(name)} adds them"
    )


def without_values(records: Sequence[Record], metric: str) -> RunError:
    """Why there are no users' values of the metric."""
    where = records[0].folder or records[0].suite
    if not any(record.status == "ok" for record in records):
        return RunError(f"{where}: no cell has finished, so that there are no users' values of {metric}")
    return RunError(
        f"{where}: the records have no value of {metric} for each user; where the metric gives such values, "
        f"grbench rescore {where} --metric {metric} adds them"
    )


def groups_text(name: str, grouping: Grouping) -> str:
    """The slice, and how many users it leaves out."""
    outside = int((grouping.codes < 0).sum())
    rest = f"; in no group: {counted(outside, 'user')}" if outside else ""
    return f"Groups: the evaluated users by {name}, in brackets their number{rest}"
