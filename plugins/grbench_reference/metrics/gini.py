"""Gini@K: how unequally the candidates are recommended (Gini index of exposure; Shani and Gunawardana, Recommender
Systems Handbook, 2011).

Shapes: Q queries, P candidates.
"""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.gains import metric_name, require_length


class Gini(Metric):
    """The Gini index of how often each candidate is among the first k: 0 = all equally often, close to 1 = a few take
    all places; this is the mean over queries.

    With the exposures x of all P candidates in ascending order, it is the sum of (2 i - P - 1) x_i / (P sum(x)).

    Gini is a property of all lists together. To give one value per query, a list contributes the weights
    Q (2 i - P - 1) / (P sum(x)) of its items, which are negative for rarely shown ones; items with equal exposure share
    their ranks' mean. Without any item in any list the value is 0.

    Args:
        k: length of the list that is scored.
    """

    higher_is_better = False
    per_user = False

    def __init__(self, *, k: PositiveInt) -> None:
        self.name = metric_name("gini", k)
        self.k = k

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, with a mean of 0 to 1."""
        require_length(ranking, self.k, self.name)
        lists = ranking.items[:, : self.k]
        items, index, exposures = np.unique(lists, return_inverse=True, return_counts=True)
        shown = items > 0
        total = int(exposures[shown].sum())
        if not total:
            return np.zeros(len(lists))
        never = max(ranking.pool - int(shown.sum()), 0)
        candidates = never + int(shown.sum())
        order = np.sort(exposures[shown])
        below, up_to = (np.searchsorted(order, exposures, side=side) for side in ("left", "right"))
        ranks = never + (below + 1 + up_to) / 2  # the mean rank of those with the same exposure; never shown ones first
        weights = np.where(shown, (2 * ranks - candidates - 1) / (candidates * total), 0.0)
        return np.asarray(len(lists) * weights[index.reshape(lists.shape)].sum(axis=1), np.float64)
