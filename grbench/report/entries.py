"""What a result table is made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from grbench.output import printable

UP, DOWN = "↑", "↓"
"""In a metric's heading: the direction of better values."""


@dataclass(frozen=True)
class TableEntry:
    """text: the formatted value; spread: half the width of its interval, empty without one; best: whether it is the
    best of its column, or cannot be told from the best; mark: a sign that the footer explains."""

    text: str
    spread: str = ""
    best: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """title: the heading; numeric: whether the entries are numbers; metric: name of the metric in the column, None for
    other columns; name: what the column is called where columns are chosen; values: names of the row's unrounded values
    that belong to it, first the one that is shown; higher_is_better: None where neither is."""

    title: str
    numeric: bool = True
    metric: str | None = None
    name: str = ""
    values: tuple[str, ...] = ()
    higher_is_better: bool | None = None

    @property
    def plain_title(self) -> str:
        """The heading without the arrow in the direction of better values."""
        return self.title.rstrip(f" {UP}{DOWN}")

    @property
    def names(self) -> tuple[str, ...]:
        """What the column may be called: its name, its heading, its heading without spaces."""
        return tuple(dict.fromkeys([self.name or self.title, self.plain_title, self.plain_title.replace(" ", "_")]))


@dataclass(frozen=True)
class ResultTable:
    """A table of comparable rows. values: each row's unrounded numbers by name, for CSV."""

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[TableEntry, ...], ...]
    footer: tuple[str, ...]
    values: tuple[dict[str, Any], ...] = field(default_factory=tuple)

    def printable(self) -> ResultTable:
        """The same table, all of whose texts can be shown anywhere: records may be somebody else's."""
        return ResultTable(
            heading=printable(self.heading),
            columns=tuple(replace(column, title=printable(column.title)) for column in self.columns),
            rows=tuple(tuple(replace(entry, text=printable(entry.text)) for entry in row) for row in self.rows),
            footer=tuple(map(printable, self.footer)),
            values=tuple(
                {printable(key): printable(each) if isinstance(each, str) else each for key, each in row.items()}
                for row in self.values
            ),
        )
