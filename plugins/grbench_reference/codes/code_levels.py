"""Levels of centres, by which items get their codes: each level's code is the centre nearest to a vector of the item.

Shapes: n some items, L levels, K_l codes of level l, D width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grbench_reference.codes.collisions import Placement, extend_prefixes, place_next_nearest
from grbench_reference.codes.item_vectors import VectorSource, in_blocks


@dataclass(frozen=True)
class Level:
    """centres: [K_l, D] float32, what each code stands for; compared: [K_l, D], what items are compared with, by
    squared Euclidean distance; index: of `compared`, with Faiss' method `search`."""

    centres: np.ndarray
    compared: np.ndarray
    index: Any


@dataclass(frozen=True)
class Assignment:
    """codes: [n, L]; nearest, placed: at the last level, before and after the policy against collisions; spilled: [n]
    bool, the policy changed a code of an earlier level."""

    codes: np.ndarray
    nearest: Placement
    placed: Placement
    spilled: np.ndarray

    @property
    def nearest_codes(self) -> np.ndarray:
        """[n, L] codes, that of the last level before the policy."""
        return np.column_stack([self.codes[:, :-1], self.nearest.codes])

    def counts(self) -> dict[str, int]:
        """Numbers of items that the policy moved: within their prefix, and to another one."""
        return {
            "moved_items": int((self.placed.moved & ~self.spilled).sum()),
            "spilled_items": int(self.spilled.sum()),
        }


@dataclass(frozen=True)
class CodeLevels(ABC):
    """Fitted levels, and the vectors of which they are."""

    vectors: VectorSource
    levels: Sequence[Level]

    @abstractmethod
    def compared(self, number: int, codes: np.ndarray, items: np.ndarray) -> np.ndarray:
        """What items [n] are compared by with the centres of level `number`: [n, width of `Level.compared`]. codes:
        [n, L], those of the levels before are set."""

    def quantised(self, codes: np.ndarray) -> np.ndarray:
        """codes [n, L] -> [n, width of a centre] float32, the sums of their centres."""
        total = np.zeros((len(codes), self.levels[0].centres.shape[1]), np.float32)
        for number, level in enumerate(self.levels):
            total += level.centres[codes[:, number]]
        return total

    def assign(self, items: np.ndarray, *, next_nearest: bool) -> Assignment:
        """Codes of items [n], level by level over all items in blocks. next_nearest: the policy against collisions."""
        codes = np.zeros((len(items), len(self.levels)), np.int64)
        prefixes = np.zeros(len(items), np.int64)
        spilled = np.zeros(len(items), bool)
        for number, level in enumerate(self.levels):
            nearest = self._nearest_centres(number, codes, items)
            placed = nearest
            if next_nearest:

                def residuals(rows: np.ndarray, number: int = number) -> np.ndarray:
                    return self.compared(number, codes[rows], items[rows])

                capacity = math.prod(len(later.centres) for later in self.levels[number + 1 :])
                placed = place_next_nearest(prefixes, nearest, level.compared, residuals, capacity=capacity)
            codes[:, number] = placed.codes
            if number + 1 < len(self.levels):
                spilled |= placed.moved
                prefixes = extend_prefixes(prefixes, placed.codes, len(level.centres))
        return Assignment(codes, nearest, placed, spilled)

    def _nearest_centres(self, number: int, codes: np.ndarray, items: np.ndarray) -> Placement:
        """Each item's nearest centre at level `number`. codes: [n, L], those of the levels before are set."""
        nearest, distances = np.empty(len(items), np.int64), np.empty(len(items), np.float32)
        for block in in_blocks(len(items), self.vectors.width):
            compared = self.compared(number, codes[block], items[block])
            found_distances, found = self.levels[number].index.search(compared, 1)
            nearest[block], distances[block] = found[:, 0], np.maximum(found_distances[:, 0], 0)
        return Placement(nearest, distances, moved=np.zeros(len(items), bool))
