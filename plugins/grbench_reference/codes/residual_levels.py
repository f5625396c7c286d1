"""Codes by levels of centres: each level's code is the centre nearest to the residual that the levels before leave.

Shapes: n some items, L levels, K_l codes of level l, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grbench_reference.codes.collisions import Placement, extend_prefixes, place_next_nearest
from grbench_reference.codes.item_vectors import VectorSource, in_blocks, normalise, unit


@dataclass(frozen=True)
class Level:
    """centres: [K_l, D] float32, what is subtracted from the residuals; compared: [K_l, D], what these are compared
    with, by squared Euclidean distance; index: of `compared`, with Faiss' method `search`."""

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
class ResidualLevels:
    """Fitted levels, and the vectors of which they are.

    normalise_residuals: each residual is scaled to unit length before the next level. cosine: residuals are compared by
    their direction only; centres are subtracted from unscaled ones.
    """

    vectors: VectorSource
    levels: Sequence[Level]
    normalise_residuals: bool = False
    cosine: bool = False

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
                    return self._compared(number, codes[rows], items[rows])

                capacity = math.prod(len(later.centres) for later in self.levels[number + 1 :])
                placed = place_next_nearest(prefixes, nearest, level.compared, residuals, capacity=capacity)
            codes[:, number] = placed.codes
            if number + 1 < len(self.levels):
                spilled |= placed.moved
                prefixes = extend_prefixes(prefixes, placed.codes, len(level.centres))
        return Assignment(codes, nearest, placed, spilled)

    def scales(self, codes: np.ndarray, items: np.ndarray) -> np.ndarray | float:
        """[n], the factor that converts squared distances at the last level to the scale of the vectors."""
        if not self.normalise_residuals:
            return 1.0
        scales = np.empty(len(items), np.float32)
        for block in in_blocks(len(items), self.vectors.width):
            scales[block] = self._residuals(len(self.levels) - 1, codes[block], items[block])[1]
        return scales**2

    def quantised(self, codes: np.ndarray) -> np.ndarray:
        """codes [n, L] -> [n, D] float32, the sums of their centres, which stand for the vectors where residuals are
        not normalised."""
        total = np.zeros((len(codes), self.vectors.width), np.float32)
        for number, level in enumerate(self.levels):
            total += level.centres[codes[:, number]]
        return total

    def _nearest_centres(self, number: int, codes: np.ndarray, items: np.ndarray) -> Placement:
        """Each item's nearest centre at level `number`. codes: [n, L], those of the levels before are set."""
        nearest, distances = np.empty(len(items), np.int64), np.empty(len(items), np.float32)
        for block in in_blocks(len(items), self.vectors.width):
            compared = self._compared(number, codes[block], items[block])
            found_distances, found = self.levels[number].index.search(compared, 1)
            nearest[block], distances[block] = found[:, 0], np.maximum(found_distances[:, 0], 0)
        return Placement(nearest, distances, moved=np.zeros(len(items), bool))

    def _compared(self, number: int, codes: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The residuals before level `number` [n, D], as they are compared with its centres."""
        residuals, _ = self._residuals(number, codes, items)
        return unit(residuals) if self.cosine else residuals

    def _residuals(self, number: int, codes: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The residuals before level `number` [n, D], and the factor by which they were shortened by normalisation
        [n]."""
        residuals = self.vectors.rows(items)
        scales = np.ones(len(items), np.float32)
        for earlier, level in enumerate(self.levels[:number]):
            residuals -= level.centres[codes[:, earlier]]
            if self.normalise_residuals:
                scales *= normalise(residuals)[:, 0]
        return residuals, scales
