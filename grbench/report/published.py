"""Published figures beside ours: the difference, and whether our interval holds the published value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grbench.report.format import counted, number
from grbench.report.rows import Row
from grbench.report.scores import RowScore

OTHER_PROTOCOL = "†"
"""Beside a published figure that ours cannot be held against."""

Position = Literal["inside", "above", "below"]
"""Where the published value lies inside our interval, or our whole interval above or below it."""


@dataclass(frozen=True)
class BesideOurs:
    """A published figure beside a row's score. figure: as records have it (`suite.published.figure_options`);
    our_users: how many users were evaluated for the row, None where that is not known."""

    figure: Mapping[str, Any]
    score: RowScore
    our_users: int | None

    @property
    def difference(self) -> float | None:
        """Ours minus the published value; None where there is none of ours."""
        return None if self.score.mean is None else self.score.mean - self.figure["value"]

    @property
    def position(self) -> Position | None:
        """None where our interval is not known."""
        difference, half_width = self.difference, self.score.half_width
        if difference is None or half_width is None:
            return None
        if abs(difference) <= half_width:
            return "inside"
        return "above" if difference > 0 else "below"

    @property
    def other_users(self) -> bool:
        """Whether other users were evaluated than for the published figure, as far as their numbers say."""
        users = self.figure.get("users")
        return users is not None and self.our_users is not None and users != self.our_users

    @property
    def is_comparable(self) -> bool:
        """Whether both were measured in the same way, on the same users."""
        return bool(self.figure["same_protocol"]) and not self.other_users


def figures_of(row: Row) -> dict[str, Mapping[str, Any]]:
    """{metric: figure} that the suite has for a row, as its newest record says."""
    newest = max(row.records, key=lambda record: record.finished)
    return {figure["metric"]: figure for figure in newest.published}


def beside_ours(rows: Sequence[Row], scores: Mapping[str, Sequence[RowScore]]) -> dict[str, list[BesideOurs | None]]:
    """{metric: each row's figure or None} of the metrics that a row has a figure of. scores: as `row_scores` gives."""
    figures = [figures_of(row) for row in rows]
    users = [next((record.counts.get("evaluated") for record in row.done), None) for row in rows]
    return {
        metric: [
            BesideOurs(found[metric], score, evaluated) if metric in found else None
            for found, score, evaluated in zip(figures, column, users, strict=True)
        ]
        for metric, column in scores.items()
        if any(metric in found for found in figures)
    }


class Sources:
    """The sources of figures, numbered in the order in which they are first named."""

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}

    def number_of(self, figure: Mapping[str, Any]) -> int:
        """The number of the figure's source; figures with the same facts beside metric and value share one."""
        return self._lines.setdefault(_source_line(figure), len(self._lines) + 1)

    def lines(self) -> list[str]:
        """`[1] arXiv 2305.05065, table 1 (3 seeds); differs: ...` of each source."""
        return [f"[{position}] {line}" for line, position in self._lines.items()]


def published_text(beside: BesideOurs | None, sources: Sources) -> str:
    """A table's entry: `.0648 (+.0012, inside) [1]`, with † where it is not comparable; — without a figure."""
    if beside is None:
        return "—"
    compared = ", ".join(filter(None, [difference_text(beside.difference), beside.position]))
    mark = "" if beside.is_comparable else OTHER_PROTOCOL
    position = sources.number_of(beside.figure)
    return figure_text(beside.figure) + (f" ({compared})" if compared else "") + f" [{position}]{mark}"


def published_numbers(metric: str, beside: BesideOurs | None) -> dict[str, Any]:
    """The columns of a CSV table."""
    if beside is None:
        return {}
    return {
        f"{metric} published": beside.figure["value"],
        f"{metric} - published": beside.difference,
        f"{metric} against published": beside.position,
        f"{metric} published, same protocol": beside.is_comparable,
        f"{metric} published in": beside.figure["source"],
    }


def published_footer(beside: Mapping[str, Sequence[BesideOurs | None]], sources: Sources) -> list[str]:
    """What the entries mean, and the sources; empty without figures."""
    figures = [entry for column in beside.values() for entry in column if entry is not None]
    if not figures:
        return []
    rule = "Published: the figure, ours minus it, and whether our 95 % interval holds it (inside) or is above or below"
    marks = []
    if any(not entry.figure["same_protocol"] for entry in figures):
        marks.append("other protocol")
    if others := {entry.our_users for entry in figures if entry.other_users}:
        marks.append(f"{' or '.join(f'{users:,}' for users in sorted(filter(None, others)))} users evaluated here")
    if marks:
        rule += f"; {OTHER_PROTOCOL}: not comparable ({', '.join(marks)})"
    return [rule, *sources.lines()]


def figure_text(figure: Mapping[str, Any]) -> str:
    """The published value, with its interval or standard error where there is one."""
    text = number(figure["value"])
    if "interval" in figure:
        low, high = figure["interval"]
        text += f" in {number(low)} to {number(high)}"
    if "standard_error" in figure:
        text += f" s.e. {number(figure['standard_error'])}"
    return text


def difference_text(difference: float | None) -> str:
    """A difference with its sign; empty where it is not known."""
    if difference is None:
        return ""
    return ("" if difference < 0 else "+") + number(difference)


def _source_line(figure: Mapping[str, Any]) -> str:
    facts = [counted(figure["seeds"], "seed")] if "seeds" in figure else []
    facts += [counted(figure["users"], "user")] if "users" in figure else []
    facts.append("same protocol" if figure["same_protocol"] else "other protocol")
    line = f"{figure['source']} ({', '.join(facts)})"
    return f"{line}; differs: {figure['differs']}" if "differs" in figure else line
