"""MRR@K: the reciprocal of the first hit's rank (Voorhees, TREC-8)."""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.gains import hits, metric_name


class MRR(Metric):
    """1 / (rank of the best-ranked target); 0 if none is among the first k.

    Args:
        k: length of the list that is scored.
    """

    higher_is_better = True

    def __init__(self, *, k: PositiveInt) -> None:
        self.name = metric_name("mrr", k)
        self.k = k

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, 0 to 1."""
        hit = hits(ranking, self.k, self.name)
        reciprocal = np.zeros(hit.shape)
        np.divide(1.0, ranking.ranks, out=reciprocal, where=hit)
        return np.asarray(reciprocal.max(axis=1, initial=0.0))
