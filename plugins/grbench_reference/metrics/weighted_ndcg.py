"""w-NDCG@K (challenge paper, section 6.2.1)."""

from __future__ import annotations

import numpy as np

from grbench.types import Ranking
from grbench_reference.metrics.gains import action_weights, averaged, discounts, hits, ideal_gain, ratio
from grbench_reference.metrics.weighted_metric import WeightedMetric


class WeightedNDCG(WeightedMetric):
    """Sum of w / log2(rank + 1) over the targets among the first k, divided by that sum for the ideal list, which
    starts with the targets of the largest weights.

    The weights w are exposure 0, click 1, conversion alpha. A query whose targets all have weight 0 gets the worst
    value, 0, as in `weighted_hit_rate`. Where users have one target the weight cancels, and this equals `ndcg`. With
    `average: weight` a query counts by its targets' weights.

    Args:
        k: length of the list that is scored.
        alpha: weight of a conversion, where a click has weight 1.
        average: user = all users count the same, as in the paper; weight = a user counts by its targets' weights.
    """

    base_name = "weighted_ndcg"

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64; 0 to 1 averaged by user, and with a mean of 0 to 1 averaged by weight."""
        weights = action_weights(ranking, self.alpha, self.name)
        gains = weights * hits(ranking, self.k, self.name) * discounts(ranking.ranks)
        return averaged(ratio(gains.sum(axis=1), ideal_gain(weights, self.k)), weights, self.average)
