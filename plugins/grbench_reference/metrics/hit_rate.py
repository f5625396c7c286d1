"""HitRate@K (challenge paper, section 6.1)."""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.gains import equal_weights, found, metric_name, share


class HitRate(Metric):
    """1 when the target is among the first k, else 0.

    With several targets it is the share of them that is found, which is the paper's weighted hit rate with equal
    weights (trec_eval: `recall`; with one target, `success`). A query without a target gets 0.

    Args:
        k: how many items of the list are looked at.
    """

    higher_is_better = True

    def __init__(self, *, k: PositiveInt) -> None:
        self.name = metric_name("hit_rate", k)
        self.k = k

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, 0 to 1."""
        weights = equal_weights(ranking)
        return share((weights * found(ranking, self.k, self.name)).sum(axis=1), weights.sum(axis=1))
