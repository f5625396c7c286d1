"""The leaderboard score (challenge paper, sections 6.1 and 6.2.2)."""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt

from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.gains import CONVERSION_WEIGHT, Average, metric_name
from grbench_reference.metrics.hit_rate import HitRate
from grbench_reference.metrics.ndcg import NDCG
from grbench_reference.metrics.weighted_hit_rate import WeightedHitRate
from grbench_reference.metrics.weighted_ndcg import WeightedNDCG

HIT_RATE_SHARE, NDCG_SHARE = 0.31, 0.69
OFFICIAL_K = 10


class Score(Metric):
    """0.31 * HitRate@k + 0.69 * NDCG@k: the score of the preliminary round, and with `weighted` that of the second.

    With one target a user and `average: user` the two are the same number.

    Args:
        k: length of the list that is scored.
        weighted: use the weighted hit rate and NDCG, as in the second round.
        alpha: with weighted, the weight of a conversion, where a click has weight 1.
        average: with weighted, user = all users count the same; weight = a user counts by its targets' weights.
    """

    higher_is_better = True

    def __init__(
        self,
        *,
        k: PositiveInt = OFFICIAL_K,
        weighted: bool = False,
        alpha: NonNegativeFloat = CONVERSION_WEIGHT,
        average: Average = "user",
    ) -> None:
        self.k = k
        self._hit_rate: HitRate | WeightedHitRate = HitRate(k=k)
        self._ndcg: NDCG | WeightedNDCG = NDCG(k=k)
        name = metric_name("score", k)
        if weighted:
            self._hit_rate = WeightedHitRate(k=k, alpha=alpha, average=average)
            self._ndcg = WeightedNDCG(k=k, alpha=alpha, average=average)
            name = self._hit_rate.name.replace("hit_rate", "score")
        self.name = name.replace("@10", "", 1) if k == OFFICIAL_K else name

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64."""
        return HIT_RATE_SHARE * self._hit_rate(ranking) + NDCG_SHARE * self._ndcg(ranking)
