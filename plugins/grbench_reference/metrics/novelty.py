"""Novelty@K: how little known the items of a list are (Zhou, Kuscsik, Liu, Medo, Wakeling and Zhang, PNAS 107(10),
2010; Castells, Hurley and Vargas, Recommender Systems Handbook, 2nd edition).

Shapes: Q queries, K list length, N items.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import PositiveInt

from grbench.data.training_data import TrainingData
from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.gains import metric_name, ratio, require_length


class Novelty(Metric):
    """The mean self-information of the first k items, -log2 p(item), in bits.

    p is the share of the training users who have an event with the item, as in Zhou et al., or with `by: events` its
    share of the training events. An item without a training event counts as one with a single user (or event). Places
    without an item are left out; a list without items gets 0.

    Args:
        k: length of the list that is scored.
        by: users = an item is known by its training users; events = by its training events.
    """

    higher_is_better = True

    def __init__(self, *, k: PositiveInt, by: Literal["users", "events"] = "users") -> None:
        self.name = metric_name("novelty", k, by=(by, "users"))
        self.k, self.by = k, by
        self._known: tuple[TrainingData, np.ndarray] | None = None

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, from 0 to log2 of the number of training users (or events)."""
        require_length(ranking, self.k, self.name)
        items = ranking.items[:, : self.k]
        bits = self._information(ranking.training)[items]  # 0 for padding
        return ratio(bits.sum(axis=1), (items > 0).sum(axis=1).astype(np.float64))

    def _information(self, training: TrainingData) -> np.ndarray:
        """[N+1] float64; kept, because validation asks for that of the same training data again."""
        if self._known is None or self._known[0] is not training:
            self._known = training, self_information(training, by_users=self.by == "users")
        return self._known[1]


def self_information(training: TrainingData, *, by_users: bool) -> np.ndarray:
    """[N+1] float64: -log2 of each item's share of the training users or events; 0 for padding."""
    if by_users:
        counts, total = users_of_items(training), int((training.lengths > 0).sum())
    else:
        counts, total = training.item_counts(), training.num_events
    bits = np.log2(max(total, 1)) - np.log2(np.maximum(counts, 1))
    bits[0] = 0.0
    return np.asarray(bits, np.float64)


def users_of_items(training: TrainingData) -> np.ndarray:
    """[N+1] int64: the number of training users who have an event with each item."""
    size = training.catalogue.num_items + 1
    counts = np.zeros(size, np.int64)
    for events in training.stream():
        rows = np.repeat(np.arange(len(events.users)), np.diff(events.offsets))
        pairs = np.unique(rows * size + events.items)
        counts += np.bincount(pairs % size, minlength=size)
    return counts
