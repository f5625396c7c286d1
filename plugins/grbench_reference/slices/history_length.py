"""The users by the number of events of their history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from grbench.interfaces import Slice
from grbench.registry.option_types import Count
from grbench.types import Ranking
from grbench_reference.slices.intervals import check_ascending, labelled

BOUNDS = [5, 10, 20, 50]
"""Chosen to divide the short logs of 5-core datasets as well as the histories of TencentGR, of up to 100 events."""


class HistoryLength(Slice):
    """Groups by the number of events before the target, also of those that no encoder reads: by default 0, 1-5, 6-10,
    11-20, 21-50 and 51+.

    Args:
        bounds: the largest number of events of each group but the last, ascending
    """

    def __init__(self, *, bounds: Annotated[list[Count], Field(min_length=1)] = BOUNDS) -> None:
        check_ascending(bounds, "history_length.bounds", bounds)
        self.name = "history_length" if bounds == BOUNDS else f"history_length@{','.join(map(str, bounds))}"
        self._bounds = [0, *bounds]
        self._groups = ["0", *(_interval(low + 1, high) for low, high in zip(self._bounds, bounds, strict=False))]
        self._groups.append(f"{bounds[-1] + 1}+")

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] text."""
        lengths = ranking.history_lengths
        return labelled(lengths, self._bounds, self._groups, np.ones(len(lengths), bool))

    def order(self, ranking: Ranking) -> Sequence[str]:  # noqa: ARG002
        """The shortest histories first."""
        return self._groups


def _interval(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
