"""The users by whether they have met their target before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grbench.interfaces import Slice
from grbench.types import Ranking

GROUPS = ("new", "repeat")


class Repeat(Slice):
    """Groups by whether the target is an item of the history: `repeat` or `new`. The whole history counts, also events
    that no encoder reads."""

    name = "repeat"

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] text; empty where the histories are not known."""
        first = ranking.targets[:, :1]
        if ranking.histories is None:
            return np.full(len(first), "")
        met = ranking.histories.contain(first)
        return np.where(first > 0, np.array(GROUPS)[met.astype(np.int64)], "")[:, 0]

    def order(self, ranking: Ranking) -> Sequence[str]:  # noqa: ARG002
        """New items first."""
        return GROUPS
