"""w-NDCG@K (challenge paper, section 6.2.1)."""

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
    discounts,
    found,
    ideal_gain,
    metric_name,
    share,
)


class WeightedNDCG(Metric):
    """Sum of w / log2(rank + 1) over the targets among the first k, over the same sum with the heaviest targets first.

    The weights are exposure 0, click 1, conversion alpha. A query whose targets weigh nothing gets the worst value,
    0, as in `weighted_hit_rate`. With one target a user the weight cancels, and this equals `ndcg`; `average: weight`
    lets a query count as much as its targets weigh.

    Args:
        k: how many items of the list are looked at.
        alpha: what a conversion is worth when a click is worth 1.
        average: user = every user counts the same (the paper's); weight = a user counts as much as its targets weigh.
    """

    higher_is_better = True

    def __init__(
        self, *, k: PositiveInt, alpha: NonNegativeFloat = CONVERSION_WEIGHT, average: Average = "user"
    ) -> None:
        self.name = metric_name("weighted_ndcg", k, alpha=(alpha, CONVERSION_WEIGHT), average=(average, "user"))
        self.k, self.alpha, self.average = k, alpha, average

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64; 0 to 1 averaged by user, and with a mean of 0 to 1 averaged by weight."""
        weights = action_weights(ranking, self.alpha, self.name)
        gains = weights * found(ranking, self.k, self.name) * discounts(ranking.ranks)
        return averaged(share(gains.sum(axis=1), ideal_gain(weights, self.k)), weights, self.average)
