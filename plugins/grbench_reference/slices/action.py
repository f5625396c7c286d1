"""The users by the action of their target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grbench.interfaces import Slice
from grbench.types import FIRST_ACTION, Ranking


class TargetAction(Slice):
    """Groups by the target's action, such as click or conversion. A target without an action is in no group."""

    name = "action"

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] text."""
        by_token = np.array([*[""] * FIRST_ACTION, *ranking.actions])
        return np.take(by_token, ranking.target_actions[:, 0])

    def order(self, ranking: Ranking) -> Sequence[str]:
        """The dataset's order."""
        return ranking.actions
