"""What the footer says of a table that does not show everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grbench.report.columns import FAILED, failure_text, filters_text, seeds_text
from grbench.report.entries import Column, ResultTable
from grbench.report.format import number
from grbench.report.rows import Row
from grbench.report.scores import RowScore

NAMES = "Names in the records"
MOST = 3
"""Rows that are named for a metric."""


def view_notes(
    whole: ResultTable,
    shown: ResultTable,
    rows: Sequence[Row],
    places: Sequence[int],
    scores: Mapping[str, Sequence[RowScore]],
) -> list[str]:
    """Rows that are not shown, above all the best ones, other names, and what a missing column would have said of the
    shown rows. whole: the table with all columns; rows: all rows, of which those at `places` are shown; scores: {shown
    metric: of all rows}."""
    notes = []
    missing = [place for place in range(len(rows)) if place not in places]
    if missing:
        notes.append(
            f"Rows: {len(places)} of {len(rows)} are shown; intervals and marks are computed over all {len(rows)}"
        )
        best = [
            _best_text(column, rows, missing, scores[column.name]) for column in shown.columns if column.name in scores
        ]
        if any(best):
            notes.append(f"Not shown, but the best, or not told from it: {'; '.join(filter(None, best))}")
    visible = [rows[place] for place in places]
    names = {column.name for column in shown.columns}
    dropped = {column.name for column in whole.columns} - names
    if "seeds" in dropped:
        notes.append(f"Seeds: {_by_value({row.name: seeds_text(row) for row in visible})}")
    if FAILED in dropped or (dropped and FAILED not in names):
        notes += [f"Failed: {row.name}: {failure_text(row)}" for row in visible if row.failed]
    if "filters" in dropped:
        notes.append(f"Filters: {_by_value({row.name: filters_text(row) or 'none' for row in visible})}")
    renamed = [f"{row.name} = {row.in_records}" for row in visible if row.in_records]
    own = {column.name: column.plain_title for column in whole.columns}
    renamed += [
        f"{column.plain_title} = {own[column.name]}"
        for column in shown.columns
        if column.plain_title != own[column.name]
    ]
    if renamed:
        notes.append(f"{NAMES}: {', '.join(renamed)}")
    return notes


def _by_value(values: Mapping[str, str]) -> str:
    """`3`, or `2 (one, two), else 3` where the rows' values differ: the most frequent one is last."""
    rows: dict[str, list[str]] = {}
    for row, value in values.items():
        rows.setdefault(value, []).append(row)
    *others, (usual, _) = sorted(rows.items(), key=lambda each: len(each[1]))
    return ", ".join([*(f"{value} ({', '.join(of)})" for value, of in others), f"else {usual}" if others else usual])


def _best_text(column: Column, rows: Sequence[Row], missing: Sequence[int], scores: Sequence[RowScore]) -> str:
    """`NDCG@10: full .2407, half .2399 and 2 more`: of the rows at `missing`, those that are the best, or cannot be
    told from it; empty without any."""
    sign = 1 if column.higher_is_better is False else -1
    best = sorted(
        (place for place in missing if scores[place].best), key=lambda place: sign * (scores[place].mean or 0.0)
    )
    named = ", ".join(f"{rows[place].name} {number(scores[place].mean)}" for place in best[:MOST])
    more = f" and {len(best) - MOST} more" if len(best) > MOST else ""
    return f"{column.plain_title}: {named}{more}" if best else ""
