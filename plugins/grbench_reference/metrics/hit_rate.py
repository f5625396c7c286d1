"""HitRate@K (challenge paper, section 6.1)."""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.gains import equal_weights, hits, metric_name, ratio


class HitRate(Metric):
    """1 if the target is among the first k, else 0.

    With several targets it is the share of them among the first k, which is the paper's weighted hit rate with equal
    weights (trec_eval: `recall`; with one target, `success`). A query without a target gets 0.

    Args:
        k: length of the list that is scored.
    """

    higher_is_better = True

    def __init__(self, *, k: PositiveInt) -> None:
        self.name = metric_name("hit_rate", k)
        self.k = k

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, 0 to 1."""
        weights = equal_weights(ranking)
        return ratio((weights * hits(ranking, self.k, self.name)).sum(axis=1), weights.sum(axis=1))
