"""The users by the time between the last event of their history and their target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field

from grbench.errors import SuiteError, cut
from grbench.interfaces import Slice
from grbench.types import Ranking
from grbench_reference.slices.intervals import check_ascending, labelled

SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
DURATION = r"([1-9][0-9]{0,8})(s|min|h|d)"

BOUNDS = ["1h", "1d", "7d", "30d"]
"""The same session, day, week and month."""


class Gap(Slice):
    """Groups by the time from the last event of the history to the target: by default up to an hour, a day, a week, 30
    days, and longer.

    A user without a history is in no group; nor is anybody where the dataset has no times, or the protocol does not say
    when its targets were (`Queries.target_times`).

    Args:
        bounds: the longest time of each group but the last, ascending, with the unit s, min, h or d
    """

    def __init__(self, *, bounds: Annotated[list[str], Field(min_length=1)] = BOUNDS) -> None:
        self._seconds = [_seconds(bound) for bound in bounds]
        check_ascending(self._seconds, "gap.bounds", bounds)
        self.name = "gap" if bounds == BOUNDS else f"gap@{','.join(bounds)}"
        between = (f"{low}-{high}" for low, high in pairwise(bounds))
        self._groups = [f"0-{bounds[0]}", *between, f"over {bounds[-1]}"]

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] text."""
        queries = len(ranking.users)
        if ranking.histories is None or ranking.target_times is None:
            return np.full(queries, "")
        last = ranking.histories.newest(np.arange(queries), 1)[2][:, 0]
        known = (ranking.history_lengths > 0) & (ranking.targets[:, 0] > 0)
        return labelled(ranking.target_times[:, 0] - last, self._seconds, self._groups, known)

    def order(self, ranking: Ranking) -> Sequence[str]:  # noqa: ARG002
        """The shortest first."""
        return self._groups


def _seconds(bound: str) -> int:
    found = re.fullmatch(DURATION, bound)
    if found is None:
        raise SuiteError(
            f"gap.bounds: {cut(repr(bound))} should be a whole number with a unit, such as 90s, 30min, 12h or 7d"
        )
    return int(found[1]) * SECONDS[found[2]]
