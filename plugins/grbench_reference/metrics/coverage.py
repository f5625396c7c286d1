"""Coverage@K of the candidate pool (Ge, Delgado-Battenfeld and Jannach, RecSys 2010: catalogue coverage)."""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from grbench.errors import RunError
from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.gains import metric_name


class Coverage(Metric):
    """The mean over queries is (different items shown to anyone) / (candidates in the pool).

    That is a property of all lists together; it is shared out so that there is still one value a query: an item that
    m queries show gives each of them Q / (pool * m). A query that shows what nobody else shows gets more. Take care
    with intervals over users: a resampled set of users shows fewer different items than its mean says.

    Args:
        k: how many items of the list are looked at.
    """

    higher_is_better = True

    def __init__(self, *, k: PositiveInt) -> None:
        self.name = metric_name("coverage", k)
        self.k = k

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, with a mean of 0 to 1."""
        held = ranking.items.shape[1]
        if self.k > held:
            raise RunError(f"{self.name}: the ranking holds {held} items a query; rank again with k={self.k}")
        queries = len(ranking.items)
        shown, place, times_shown = np.unique(ranking.items[:, : self.k], return_inverse=True, return_counts=True)
        value = np.where(shown > 0, queries / (max(ranking.pool, 1) * times_shown.astype(np.float64)), 0.0)
        shares = value[place.reshape(queries, self.k)] if queries else np.zeros((0, self.k))
        return np.asarray(shares.sum(axis=1), np.float64)
