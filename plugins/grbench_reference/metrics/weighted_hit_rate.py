"""w-HitRate@K (challenge paper, section 6.2.1)."""

from __future__ import annotations

import numpy as np

from grbench.types import Ranking
from grbench_reference.metrics.gains import action_weights, averaged, hits, ratio
from grbench_reference.metrics.weighted_metric import WeightedMetric


class WeightedHitRate(WeightedMetric):
    """Sum of the weights of the targets among the first k, divided by the sum over all targets of the query.

    The weights are exposure 0, click 1, conversion alpha. A query whose targets all have weight 0 (exposures) gets the
    worst value, 0, so that the mean is over the same queries for every metric; the paper leaves 0 / 0 undefined.

    Because the paper normalises by the user's own weights, this equals `hit_rate` where users have one target: finding
    a conversion and finding a click both give 1. With `average: weight` a query counts by its targets' weights.

    Args:
        k: length of the list that is scored.
        alpha: weight of a conversion, where a click has weight 1.
        average: user = all users count the same, as in the paper; weight = a user counts by its targets' weights.
    """

    base_name = "weighted_hit_rate"

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64; 0 to 1 averaged by user, and with a mean of 0 to 1 averaged by weight."""
        weights = action_weights(ranking, self.alpha, self.name)
        hit_weight = (weights * hits(ranking, self.k, self.name)).sum(axis=1)
        return averaged(ratio(hit_weight, weights.sum(axis=1)), weights, self.average)
