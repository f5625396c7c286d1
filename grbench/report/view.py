"""Which columns and rows of a table are shown, in which order, and what they are called.

A view changes no number: intervals and marks are computed over all rows, whichever are shown, and the footer says what
is not shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grbench.errors import RunError, cut
from grbench.report.columns import metric_label
from grbench.report.entries import DOWN, UP, Column, ResultTable
from grbench.report.rows import Row
from grbench.report.selection import Pick, check_picks, chosen, picks

ASCENDING, DESCENDING = ":asc", ":desc"


@dataclass(frozen=True)
class View:
    """columns, rows: what is shown, with labels, empty for all; metrics: those that have columns, empty for all; sort:
    a column by which rows are sorted, with ASCENDING or DESCENDING at its end or without; caption: in place of the
    heading."""

    columns: tuple[Pick, ...] = ()
    rows: tuple[Pick, ...] = ()
    metrics: tuple[Pick, ...] = ()
    sort: str | None = None
    caption: str | None = None

    @classmethod
    def of_options(
        cls,
        *,
        columns: Sequence[str] = (),
        rows: Sequence[str] = (),
        metrics: Sequence[str] = (),
        sort: str | None = None,
        caption: str | None = None,
    ) -> View:
        """From a command's options, whose syntax is that of `selection.picks`. Raises RunError."""
        return cls(
            picks(columns, "--columns"),
            picks(rows, "--rows"),
            tuple(Pick(name) for name in dict.fromkeys(metrics)),
            sort,
            caption,
        )

    def check(self, rows: Sequence[Row], metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises RunError with the chosen rows and metrics that there are not, and all that there are. rows, metrics:
        those of all tables."""
        check_picks(self.rows, [(row.name,) for row in rows], "--rows")
        check_picks(self.metrics, _metric_names(metrics), "--metric")

    def check_columns(self, columns: Sequence[Column]) -> None:
        """The same of the columns of all tables."""
        names = list(dict.fromkeys(column.names for column in columns))
        check_picks(self.columns, names, "--columns")
        if self._sort_column:
            column, colon, _ = self._sort_column.name.rpartition(":")
            if colon and any(column in each for each in names):
                raise RunError(f"--sort {cut(str(self.sort))}: a direction is {ASCENDING} or {DESCENDING}")
            check_picks([self._sort_column], names, "--sort")

    def named(self, rows: Sequence[Row]) -> list[Row]:
        """The rows under the names that are chosen for them, which all notes then use. Raises RunError where two rows
        would have one name, whether they are shown or not."""
        labels = {pick.name: pick.label for pick in self.rows if pick.label is not None}
        if not labels:
            return list(rows)
        renamed = [_renamed(row, labels) for row in rows]
        names = [row.name for row in renamed]
        for row in renamed:
            if row.in_records and names.count(row.name) > 1:
                raise RunError(f"--rows: {cut(row.in_records)} cannot be called {cut(row.name)}, as another row is")
        return renamed

    def places(self, rows: Sequence[Row]) -> list[int]:
        """Places of the rows that are shown, in their order. rows: as `named` gives."""
        return [place for place, _ in chosen(self.rows, [(row.in_records or row.name,) for row in rows])]

    def metrics_of(self, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Those of the metrics {name: the records' facts about it} that have columns."""
        names = list(known)
        return {names[place]: known[names[place]] for place, _ in chosen(self.metrics, _metric_names(known))}

    def of_table(self, table: ResultTable) -> ResultTable:
        """The table with the chosen columns, the first one always first, and its rows sorted. Columns that it does not
        have are left out: `check_columns` says so."""
        found = chosen(self.columns, [column.names for column in table.columns])
        labels = dict(found)
        places = [0, *(place for place, _ in found if place != 0)]
        order = self._order(table)
        kept = _value_names(table, places, others=not self.columns)
        return replace(
            table,
            columns=tuple(_titled(table.columns[place], labels.get(place)) for place in places),
            rows=tuple(tuple(table.rows[row][place] for place in places) for row in order),
            values=tuple(
                {name: table.values[row][name] for name in kept if name in table.values[row]} for row in order
            ),
        )

    @property
    def _sort_column(self) -> Pick | None:
        return None if self.sort is None else Pick(self.sort.removesuffix(ASCENDING).removesuffix(DESCENDING))

    def _order(self, table: ResultTable) -> list[int]:
        """Places of the rows, sorted: by a metric the best first, by other numbers the largest, by text from A to Z,
        unless the direction is given; rows without a value last."""
        places = list(range(len(table.rows)))
        found = chosen([self._sort_column], [column.names for column in table.columns]) if self._sort_column else []
        if not found:
            return places
        column = table.columns[found[0][0]]
        keys: list[Any] = [row[found[0][0]].text for row in table.rows]
        if column.numeric and column.values:
            keys = [row.get(column.values[0]) for row in table.values]
        known = [place for place in places if _is_known(keys[place])]
        descending = column.higher_is_better is not False if column.numeric else False
        if self.sort and self.sort.endswith((ASCENDING, DESCENDING)):
            descending = self.sort.endswith(DESCENDING)
        return sorted(known, key=lambda place: keys[place], reverse=descending) + [
            place for place in places if not _is_known(keys[place])
        ]


EVERYTHING = View()
"""Everything, as the records have it."""


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _metric_names(known: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [tuple(dict.fromkeys([name, metric_label(name, facts)])) for name, facts in known.items()]


def _renamed(row: Row, labels: Mapping[str, str]) -> Row:
    """The row and its records under another name, as is the baseline that these name."""
    label = labels.get(row.name)
    records = tuple(
        replace(record, method=label or record.method, baseline=labels.get(record.baseline or "", record.baseline))
        for record in row.records
    )
    return replace(row, name=label, records=records, in_records=row.name) if label else replace(row, records=records)


def _titled(column: Column, label: str | None) -> Column:
    """The column under another heading, which keeps the arrow in the direction of better values."""
    if label is None:
        return column
    arrow = column.title[-1] if column.title.endswith((UP, DOWN)) and not label.endswith((UP, DOWN)) else ""
    return replace(column, title=f"{label} {arrow}".strip())


def _value_names(table: ResultTable, places: Sequence[int], *, others: bool) -> list[str]:
    """Names of the unrounded values that belong to the columns at these places, in their order. others: in the table's
    own order, and with those that belong to no column."""
    names = list(dict.fromkeys(name for row in table.values for name in row))
    kept = list(dict.fromkeys(name for place in places for name in table.columns[place].values if name in names))
    if not others:
        return kept
    dropped = {name for column in table.columns for name in column.values} - set(kept)
    return [name for name in names if name not in dropped]
