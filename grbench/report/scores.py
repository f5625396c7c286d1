"""The scores in a table's rows: means, intervals, and which of them can be told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grbench.report.rows import Row
from grbench.results.record import Record, ranking_path
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


def row_scores(rows: Sequence[Row], metric: str, *, higher_is_better: bool, baseline: str | None) -> list[RowScore]:
    """The scores of all rows of a table by one metric. baseline: the name of the row that others are tested against."""
    means = [_mean([record.scores.get(metric) for record in row.done]) for row in rows]
    known = _user_scores(rows, metric)
    seeds = pooled_seed_variance(known.values())
    compared = {name: scores for name, scores in known.items() if len(known) > 1}
    if len(known) < sum(mean is not None for mean in means):
        compared = {}  # a row whose users are not known may be the best
    best = best_methods(compared, higher_is_better=higher_is_better)
    versus = against(baseline, compared) if baseline in compared else {}
    return [
        RowScore(
            mean=mean,
            estimate=interval_of_mean(known[row.name], seeds) if row.name in known else None,
            best=row.name in best,
            versus_baseline=versus.get(row.name),
        )
        for row, mean in zip(rows, means, strict=True)
    ]


def _user_scores(rows: Sequence[Row], metric: str) -> Mapping[str, Scores]:
    """{row's name: its users' values} of the rows whose cells all have them, for the same users in the same order."""
    found: dict[str, Scores] = {}
    users: np.ndarray | None = None
    for row in rows:
        values = []
        for record in row.done:
            read = _values(record, metric)
            if read is None or (users is not None and not np.array_equal(read[0], users)):
                break
            users = read[0]
            values.append(read[1])
        else:
            if values:
                found[row.name] = Scores(np.stack(values))
    return found


def _values(record: Record, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
    return None if record.folder is None else read_values(ranking_path(record.folder, record.digest), metric)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
