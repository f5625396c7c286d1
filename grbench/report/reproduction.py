"""Whether a suite's published figures were met, row by row: what `grbench reproduce` says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from grbench.output import printable
from grbench.report.choice import choice
from grbench.report.columns import metric_label
from grbench.report.footer import of_all_lists
from grbench.report.format import counted, label_of, number
from grbench.report.published import (
    OTHER_PROTOCOL,
    BesideOurs,
    Sources,
    beside_ours,
    difference_text,
    figure_text,
)
from grbench.report.rows import Row, comparable_groups, rows_of
from grbench.report.scores import shown_scores
from grbench.results.record import Record
from grbench.results.record_files import latest

RULE = (
    "met: our 95 % interval holds the published value; above, below: all of it lies above or below; no interval: too "
    "little is recorded to say"
)
OVER_USERS = ". Intervals are over users only: there are too few seeds to know how much these vary"
NOT_MET = ("below", "failed", "other users", "no interval", "no result")


@dataclass(frozen=True)
class ReproducedFigure:
    """A row of the report. beside: our score and the published one, None where the row has no figure; verdict: met,
    above or below, or why that cannot be said (not chosen: a row of a grid whose test scores are not shown); counts:
    whether a figure that is not met is a failure."""

    method: str
    metric: str
    verdict: str
    counts: bool
    beside: BesideOurs | None = None


@dataclass(frozen=True)
class Reproduction:
    """All rows of the report."""

    figures: tuple[ReproducedFigure, ...]

    @property
    def met(self) -> bool:
        """Whether no cell failed, and each figure of the same protocol is met or exceeded."""
        return not any(figure.counts and figure.verdict in NOT_MET for figure in self.figures)

    def text(self) -> str:
        """The table as it is printed, with the rule, the sources and the totals."""
        from tabulate import tabulate

        sources = Sources()
        rows = [_cells(figure, sources) for figure in self.figures]
        table = tabulate(
            rows,
            headers=["method", "metric", "ours", "published", "difference", "verdict", "source"],
            tablefmt="simple",
            disable_numparse=True,
            colalign=["left", "left", "right", "right", "right", "left", "left"],
        )
        totals = Counter(figure.verdict for figure in self.figures if figure.counts or figure.beside is None)
        others = sum(figure.beside is not None and not figure.counts for figure in self.figures)
        said = ", ".join(f"{count} {verdict}" for verdict, count in totals.items())
        if others:
            said += f"; {OTHER_PROTOCOL} not counted: {counted(others, 'figure')} of another protocol"
        estimates = [figure.beside.score.estimate for figure in self.figures if figure.beside is not None]
        over_users = any(estimate is not None and estimate.over == "users" for estimate in estimates)
        return printable("\n".join([table, "", RULE + OVER_USERS * over_users, *sources.lines(), said]), "\n")


def reproduction(
    records: Sequence[Record], expected: Mapping[str, Collection[str]] = MappingProxyType({})
) -> Reproduction:
    """The report on records. expected: {method: metrics that it has a figure of}, of which there may be no records."""
    figures: list[ReproducedFigure] = []
    there: set[tuple[str, str]] = set()
    for group in comparable_groups(latest(records)):
        rows = rows_of(group)
        first = next((record for record in group if record.status == "ok"), group[0])
        metrics = {**first.metrics, **{name: facts for each in group for name, facts in each.metrics.items()}}
        higher = {name: bool(facts.get("higher_is_better", True)) for name, facts in metrics.items()}
        together = [name for name, facts in metrics.items() if of_all_lists(facts)]
        hidden = choice(rows).hidden
        beside = beside_ours(rows, shown_scores(rows, higher, hidden, baseline=None, together=together))
        for index, row in enumerate(rows):
            of_row = {metric: found for metric, column in beside.items() if (found := column[index]) is not None}
            there |= {(row.records[0].method, metric) for metric in of_row}
            if not of_row and (row.failed or not expected.get(row.records[0].method)):
                verdict = "failed" if row.failed else "no figure"
                figures.append(ReproducedFigure(row.name, "", verdict, bool(row.failed)))
            figures += [
                ReproducedFigure(
                    row.name,
                    metric_label(metric, metrics[metric]),
                    "not chosen" if index in hidden and not row.failed else _verdict(row, found, higher[metric]),
                    bool(row.failed) or bool(found.figure["same_protocol"]),
                    found,
                )
                for metric, found in of_row.items()
            ]
    figures += [
        ReproducedFigure(method, label_of(metric), "no result", True)
        for method, metrics in expected.items()
        for metric in metrics
        if (method, metric) not in there
    ]
    return Reproduction(tuple(figures))


def _verdict(row: Row, beside: BesideOurs, higher_is_better: bool) -> str:
    if row.failed:
        return "failed"
    if beside.other_users:
        return "other users"
    if beside.position is None:
        return "no interval"
    if beside.position == "inside":
        return "met"
    # Of a metric whose smaller values are better, a lower score exceeds the published one.
    return "above" if (beside.position == "above") == higher_is_better else "below"


def _cells(figure: ReproducedFigure, sources: Sources) -> list[str]:
    beside = figure.beside
    if beside is None:
        return [figure.method, figure.metric, "", "", "", figure.verdict, ""]
    ours, width = number(beside.score.mean), beside.score.half_width
    return [
        figure.method,
        figure.metric,
        ours if width is None else f"{ours} ± {number(width)}",
        figure_text(beside.figure),
        difference_text(beside.difference),
        figure.verdict + (OTHER_PROTOCOL if not beside.figure["same_protocol"] else ""),
        f"[{sources.number_of(beside.figure)}]",
    ]
