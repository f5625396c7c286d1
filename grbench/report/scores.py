"""The scores in a table's rows: means, intervals, and which of them can be told apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grbench.report.rows import Row, mean_of_known
from grbench.results.record import Record
from grbench.results.record_files import ranking_path
from grbench.results.values import read_values
from grbench.statistics.comparison import Comparison, against, best_methods
from grbench.statistics.intervals import Estimate, interval_of_mean
from grbench.statistics.scores import Scores, pooled_seed_variance


@dataclass(frozen=True)
class RowScore:
    """One row's score by a metric. mean: over users and seeds, None where no cell of the row has one; estimate: the
    mean with its interval, None where users' values are not at hand; best: whether it is the best of its column, or
    cannot be told from the best; versus_baseline: its difference from the suite's baseline, None for the baseline
    itself and where it is not known."""

    mean: float | None = None
    estimate: Estimate | None = None
    best: bool = False
    versus_baseline: Comparison | None = None

    @property
    def half_width(self) -> float | None:
        """Half the width of the 95 % interval."""
        return None if self.estimate is None else self.estimate.half_width()


def row_scores(
    rows: Sequence[Row], metrics: Mapping[str, bool], *, baseline: str | None, together: Collection[str] = ()
) -> dict[str, list[RowScore]]:
    """{metric: the scores of all rows of a table}. metrics: {name: whether higher is better}; baseline: the name of the
    row that others are tested against; together: metrics that are a property of all lists together, so that users'
    values give no interval."""
    _, known = user_scores(rows, [metric for metric in metrics if metric not in together])
    return {
        metric: column_scores(
            rows, recorded_means(rows, metric), known.get(metric, {}), higher_is_better=higher, baseline=baseline
        )
        for metric, higher in metrics.items()
    }


def shown_scores(
    rows: Sequence[Row],
    metrics: Mapping[str, bool],
    hidden: Collection[int],
    *,
    baseline: str | None,
    together: Collection[str] = (),
) -> dict[str, list[RowScore]]:
    """As `row_scores`, but rows at the places `hidden` have no scores, nor are others compared with them."""
    able = [row for place, row in enumerate(rows) if place not in hidden]
    scores = row_scores(able, metrics, baseline=baseline, together=together)
    shown = {metric: iter(column) for metric, column in scores.items()}
    return {
        metric: [RowScore() if place in hidden else next(shown[metric]) for place in range(len(rows))]
        for metric in metrics
    }


def recorded_means(rows: Sequence[Row], metric: str) -> list[float | None]:
    """Each row's mean over the seeds of the scores in its records; None where it has none."""
    return [_mean_of_seeds(row, metric) for row in rows]


def column_scores(
    rows: Sequence[Row],
    means: Sequence[float | None],
    known: Mapping[str, Scores],
    *,
    higher_is_better: bool,
    baseline: str | None,
) -> list[RowScore]:
    """The scores of all rows by one metric. means: of each row, None where it has none; known: users' values by the
    names of the rows that have them."""
    seeds = pooled_seed_variance(known.values())
    # A row whose users' values are not known may be the best.
    compared = known if 1 < len(known) == sum(mean is not None for mean in means) else {}
    best = best_methods(compared, seeds, higher_is_better=higher_is_better)
    versus = against(baseline, compared, seeds) if baseline is not None and baseline in compared else {}
    return [
        RowScore(
            mean=mean,
            estimate=interval_of_mean(known[row.name], seeds) if row.name in known else None,
            best=row.name in best,
            versus_baseline=versus.get(row.name),
        )
        for row, mean in zip(rows, means, strict=True)
    ]


def user_scores(rows: Sequence[Row], metrics: Sequence[str]) -> tuple[np.ndarray | None, dict[str, dict[str, Scores]]]:
    """(ids of the users, {metric: {row's name: its users' values}}) of the rows whose cells all have them, for the same
    users in the same order as the first such row; None where no row has any."""
    found: dict[str, dict[str, Scores]] = {metric: {} for metric in metrics}
    users: np.ndarray | None = None
    for row in rows:
        cells = [_values(record, metrics) for record in row.done]
        read = [cell for cell in cells if cell is not None]
        if not read or len(read) < len(cells):
            continue
        users = read[0][0] if users is None else users
        if not all(np.array_equal(of_users, users) for of_users, _ in read):
            continue
        for metric in metrics:
            if all(metric in values for _, values in read):
                found[metric][row.name] = Scores(np.stack([values[metric] for _, values in read]))
    return users, found


def _values(record: Record, metrics: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    return None if record.folder is None else read_values(ranking_path(record.folder, record.digest), metrics)


def _mean_of_seeds(row: Row, metric: str) -> float | None:
    """None where a seed was not scored by the metric: the others' mean would be one over other seeds."""
    if any(metric not in record.scores for record in row.done):
        return None
    return mean_of_known([record.scores[metric] for record in row.done])
