"""The users by how often their target occurs in the training data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grbench.interfaces import Slice
from grbench.types import Ranking

GROUPS = ("head", "middle", "tail", "cold")


class TargetPopularity(Slice):
    """Groups by the target's training events: head, middle, tail or cold.

    The items are put in order of their training events. `head` are the most popular items, which have a third of all
    training events together, `middle` those after them, which have the second third, `tail` all others that have any,
    and `cold` is a target without a training event. Items with equally many events are in the same group: an item is
    of the head where the items with more events than it have less than a third of all events, and of the middle where
    they have less than two thirds.
    """

    name = "popularity"

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] text."""
        counts = ranking.training.item_counts()
        more, total = events_of_more_popular(counts), int(counts.sum())
        group = np.select([counts == 0, 3 * more < total, 3 * more < 2 * total], [3, 0, 1], 2)
        first = ranking.targets[:, 0]
        return np.where(first > 0, np.array(GROUPS)[group[first]], "")

    def order(self, ranking: Ranking) -> Sequence[str]:  # noqa: ARG002
        """The most popular first."""
        return GROUPS


def events_of_more_popular(counts: np.ndarray) -> np.ndarray:
    """counts [N+1], events of each item -> [N+1] int64, events of all items with more events than it."""
    distinct, place, items = np.unique(counts, return_inverse=True, return_counts=True)
    events = distinct.astype(np.int64) * items
    more: np.ndarray = (events.sum() - np.cumsum(events))[place]
    return more
