"""The rows that share a table, and what of them may be shown; tables and figures are made from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from grbench.errors import RunError, cut
from grbench.registry.options import suggestion
from grbench.report.choice import Choice, choice
from grbench.report.footer import of_all_lists
from grbench.report.rows import Row, comparable_groups, comparison_facts, differing_keys, rows_of
from grbench.report.scores import RowScore, shown_scores
from grbench.report.view import View
from grbench.results.checksums import refuse_altered
from grbench.results.integrity import altered_lists
from grbench.results.record import Record
from grbench.results.record_files import latest


@dataclass(frozen=True)
class ComparedRows:
    """The rows of one table. title: its heading, which says in what it differs from other tables of the same records;
    rows: all of them, those without test scores to show among them."""

    title: str
    rows: tuple[Row, ...]

    def named(self, view: View) -> ComparedRows:
        """The same under the names that are chosen for the rows; raises RunError where two would have one."""
        return replace(self, rows=tuple(view.named(self.rows)))

    @cached_property
    def records(self) -> list[Record]:
        """Of all rows."""
        return [record for row in self.rows for record in row.records]

    @cached_property
    def chosen(self) -> Choice:
        """Which rows of grids were chosen on validation; the others' test scores are not shown."""
        return choice(self.rows)

    @cached_property
    def first(self) -> Record:
        """A record, finished if any is, for the facts that all records share."""
        return next((record for record in self.records if record.status == "ok"), self.records[0])

    @cached_property
    def metrics(self) -> dict[str, Mapping[str, Any]]:
        """{name: the records' facts about it} of all metrics."""
        return {name: facts for record in (self.first, *self.records) for name, facts in record.metrics.items()}

    def higher_is_better(self, metric: str) -> bool:
        """Which way the metric goes."""
        return bool(self.metrics[metric].get("higher_is_better", True))

    @cached_property
    def _known(self) -> dict[tuple[str, str | None], list[RowScore]]:
        """{(metric, row that others are tested against): each row's score}, as far as they were asked for."""
        return {}

    def scores(self, metrics: Sequence[str] | None = None, against: str | None = None) -> dict[str, list[RowScore]]:
        """{metric: each row's score}, as tables show them; that of a row that was not chosen is empty. metrics: None =
        all; against: the row that others are tested against, None = the suite's baseline. What was computed once is
        kept, because a report has many figures of the same scores."""
        names = list(self.metrics) if metrics is None else metrics
        baseline = self.first.baseline if against is None else against
        if new := [name for name in names if (name, baseline) not in self._known]:
            found = shown_scores(
                self.rows,
                {name: self.higher_is_better(name) for name in new},
                self.chosen.hidden,
                baseline=baseline,
                together=[name for name in new if of_all_lists(self.metrics[name])],
            )
            self._known.update({(name, baseline): column for name, column in found.items()})
        return {name: self._known[name, baseline] for name in names}

    def metric(self, asked: str | None = None, *, of_each_user: bool = False) -> str:
        """The metric that was asked for, else the first with a value for each user, else the first. Raises RunError
        where there is no such metric, and with of_each_user where it is a property of all lists together."""
        each_user = [name for name, facts in self.metrics.items() if not of_all_lists(facts)]
        if asked is None:
            asked = next(iter([*each_user, *self.metrics]), "")
        if asked not in self.metrics:
            raise RunError(f"--metric {cut(asked)}: the records have no such metric; {suggestion(asked, self.metrics)}")
        if of_each_user and asked not in each_user:
            raise RunError(
                f"--metric {asked}: is of all lists together, so that no user has a value; {suggestion('', each_user)}"
            )
        return asked

    def row_named(self, name: str) -> Row:
        """The row of this name, as tables show it. Raises RunError where there is none."""
        by_name = {row.name: row for row in self.rows}
        if name not in by_name:
            raise RunError(f"there is no row {cut(name)!r} in these results; {suggestion(name, list(by_name))}")
        return by_name[name]


def compared_rows(records: Sequence[Record]) -> list[ComparedRows]:
    """The records that tables are made from, in groups of comparable ones.

    Raises AlteredError that names the lists that were altered after they were written, or are gone."""
    newest = latest(records)
    refuse_altered(filter(None, map(altered_lists, newest)))
    return compared_groups(comparable_groups(newest))


def compared_groups(groups: Sequence[Sequence[Record]]) -> list[ComparedRows]:
    """The rows of each group, with a title that says in what the groups differ."""
    differing = differing_keys([comparison_facts(group[0]) for group in groups])
    return [
        ComparedRows(_title_of(group[0], differing, position, len(groups)), tuple(rows_of(group)))
        for position, group in enumerate(groups, 1)
    ]


def _title_of(first: Record, differing: Sequence[str], position: int, total: int) -> str:
    """The heading of a table of records such as `first`, which says in what it differs from the other tables."""
    name = f"{first.suite}: {first.title}" if first.title else first.suite
    if total == 1:
        return name
    keys = ", ".join(differing) or "their facts"
    return f"{name}, table {position} of {total}, not comparable with the others ({keys} differ)"
