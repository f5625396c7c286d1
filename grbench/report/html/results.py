"""The results that a chapter of a report is about: rows that can be compared, and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from grbench.report.choice import selection_metric
from grbench.report.columns import metric_heading, metric_label
from grbench.report.compared import ComparedRows, compared_rows
from grbench.report.entries import ResultTable
from grbench.report.footer import of_all_lists
from grbench.report.scores import RowScore
from grbench.report.table import tables
from grbench.results.audit_file import SuiteAudit
from grbench.results.record import Record


@dataclass(frozen=True)
class Results:
    """compared: the rows; table: of them, as `grbench table` shows it; trials: of tuned methods of their suites;
    audits: of their suites by these suites' names."""

    compared: ComparedRows
    table: ResultTable
    trials: Sequence[Record] = ()
    audits: Mapping[str, SuiteAudit] = field(default_factory=dict)

    @cached_property
    def scores(self) -> dict[str, list[RowScore]]:
        """{metric: each row's score}; those of rows that were not chosen on validation are empty."""
        return self.compared.scores()

    @cached_property
    def of_users(self) -> list[str]:
        """The metrics that have a value for each user."""
        return [name for name, facts in self.compared.metrics.items() if not of_all_lists(facts)]

    @cached_property
    def metric(self) -> str | None:
        """The metric of what shows only one: the one that training selects by, else the first of `of_users`."""
        chosen = next((found for record in self.compared.records if (found := selection_metric(record))), None)
        return chosen if chosen in self.of_users else next(iter(self.of_users), None)

    @property
    def main_first(self) -> list[str]:
        """The metrics of `of_users`, `metric` first."""
        return sorted(self.of_users, key=lambda name: name != self.metric)

    @cached_property
    def leaders(self) -> list[str]:
        """The names of all rows, those with the best scores by `metric` first, those without one last."""
        if self.metric is None:
            return [row.name for row in self.compared.rows]
        sign = -1 if self.compared.higher_is_better(self.metric) else 1
        means = {row.name: score.mean for row, score in zip(self.compared.rows, self.scores[self.metric], strict=True)}
        return sorted(means, key=lambda name: (means[name] is None, sign * (means[name] or 0.0)))

    @property
    def suites(self) -> list[str]:
        """The names of the suites that the records are of."""
        return list(dict.fromkeys(record.suite for record in self.compared.records))

    def label(self, metric: str) -> str:
        """A metric's name, as tables have it."""
        return metric_label(metric, self.compared.metrics.get(metric, {}))

    def heading(self, metric: str) -> str:
        """A metric's name with an arrow in the direction of better values."""
        return metric_heading(metric, self.compared.metrics.get(metric, {}))


def results_of(records: Sequence[Record], trials: Sequence[Record], audits: Mapping[str, SuiteAudit]) -> list[Results]:
    """The results of each group of comparable records, in the order of tables. Raises AlteredError as tables do."""
    found = []
    for compared, table in zip(compared_rows(records), tables(records), strict=True):
        suites = {record.suite for record in compared.records}
        of_suites = {name: audit for name, audit in audits.items() if name in suites}
        found.append(Results(compared, table, [trial for trial in trials if trial.suite in suites], of_suites))
    return found
