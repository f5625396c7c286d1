"""w-HitRate@K (challenge paper, section 6.2.1)."""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt

from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.gains import (
    CONVERSION_WEIGHT,
    Average,
    action_weights,
    averaged,
    found,
    metric_name,
    share,
)


class WeightedHitRate(Metric):
    """Sum of weights of the targets among the first k, over the sum of weights of all the query's targets.

    The weights are exposure 0, click 1, conversion alpha. A query whose targets weigh nothing (exposures only) has
    nothing to be found: the paper leaves 0 / 0 open, and here it gets the worst value, 0, so that the mean is over
    the same queries for every metric.

    As the paper normalises each user by that user's own weights, with one target a user this equals `hit_rate`: a
    found conversion and a found click both give 1. `average: weight` lets a query count as much as its targets weigh.

    Args:
        k: how many items of the list are looked at.
        alpha: what a conversion is worth when a click is worth 1.
        average: user = every user counts the same (the paper's); weight = a user counts as much as its targets weigh.
    """

    higher_is_better = True

    def __init__(
        self, *, k: PositiveInt, alpha: NonNegativeFloat = CONVERSION_WEIGHT, average: Average = "user"
    ) -> None:
        self.name = metric_name("weighted_hit_rate", k, alpha=(alpha, CONVERSION_WEIGHT), average=(average, "user"))
        self.k, self.alpha, self.average = k, alpha, average

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64; 0 to 1 averaged by user, and with a mean of 0 to 1 averaged by weight."""
        weights = action_weights(ranking, self.alpha, self.name)
        hits = (weights * found(ranking, self.k, self.name)).sum(axis=1)
        return averaged(share(hits, weights.sum(axis=1)), weights, self.average)
