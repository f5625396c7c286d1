"""Codes by levels of centres: each level's code is the centre nearest to the residual that the levels before leave.

Shapes: n some items, L levels, K_l codes of level l, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grbench_reference.codes.code_levels import CodeLevels
from grbench_reference.codes.item_vectors import in_blocks, normalise, unit


@dataclass(frozen=True)
class ResidualLevels(CodeLevels):
    """Fitted levels whose centres add up.

    normalise_residuals: each residual is scaled to unit length before the next level. cosine: residuals are compared by
    their direction only; centres are subtracted from unscaled ones.
    """

    normalise_residuals: bool = False
    cosine: bool = False

    def scales(self, codes: np.ndarray, items: np.ndarray) -> np.ndarray | float:
        """[n], the factor that converts squared distances at the last level to the scale of the vectors."""
        if not self.normalise_residuals:
            return 1.0
        scales = np.empty(len(items), np.float32)
        for block in in_blocks(len(items), self.vectors.width):
            scales[block] = self._residuals(len(self.levels) - 1, codes[block], items[block])[1]
        return scales**2

    def compared(self, number: int, codes: np.ndarray, items: np.ndarray) -> np.ndarray:
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
