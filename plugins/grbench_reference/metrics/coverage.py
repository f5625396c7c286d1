"""Coverage@K of the candidate pool (catalogue coverage of Ge, Delgado-Battenfeld and Jannach, RecSys 2010)."""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.gains import metric_name, require_length


class Coverage(Metric):
    """The share of the candidates that are in at least one query's list; this is the mean over queries.

    Coverage is a property of all lists together. To give one value per query, an item that is in the lists of m queries
    contributes Q / (pool * m) to each of them. These say nothing of their users, so that tables show no interval: a
    bootstrap sample of users covers fewer different items than the mean of its values says.

    Args:
        k: length of the list that is scored.
    """

    higher_is_better = True
    per_user = False

    def __init__(self, *, k: PositiveInt) -> None:
        self.name = metric_name("coverage", k)
        self.k = k

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, with a mean of 0 to 1."""
        require_length(ranking, self.k, self.name)
        queries = len(ranking.items)
        items, index, counts = np.unique(ranking.items[:, : self.k], return_inverse=True, return_counts=True)
        value = np.where(items > 0, queries / (max(ranking.pool, 1) * counts.astype(np.float64)), 0.0)
        shares = value[index.reshape(queries, self.k)] if queries else np.zeros((0, self.k))
        return np.asarray(shares.sum(axis=1), np.float64)
