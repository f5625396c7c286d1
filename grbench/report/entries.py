"""What a result table is made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from grbench.output import printable


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
    other columns."""

    title: str
    numeric: bool = True
    metric: str | None = None


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
