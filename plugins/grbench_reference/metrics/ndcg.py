"""NDCG@K (challenge paper, section 6.1; with several targets its second-round form, with equal weights)."""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.gains import discounts, equal_weights, hits, ideal_gain, metric_name, ratio


class NDCG(Metric):
    """Sum of 1 / log2(rank + 1) over the targets among the first k, divided by that sum for the ideal list.

    With one target a query the ideal is 1. A query without a target gets 0.

    Args:
        k: length of the list that is scored.
    """

    higher_is_better = True

    def __init__(self, *, k: PositiveInt) -> None:
        self.name = metric_name("ndcg", k)
        self.k = k

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, 0 to 1."""
        weights = equal_weights(ranking)
        gains = weights * hits(ranking, self.k, self.name) * discounts(ranking.ranks)
        return ratio(gains.sum(axis=1), ideal_gain(weights, self.k))
