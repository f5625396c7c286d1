"""Rows of a table down the vertical axis of a figure, with their names, whatever these are long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grbench.report.plots.style import SMALL, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE_HEIGHT = SMALL * 1.2 / 72
"""Inches of a line of a name."""
GAP = 0.045
"""Inches between two names."""


@dataclass(frozen=True)
class RowPlaces:
    """names: broken into lines; centres: [R] inches from the top; height: inches that all take."""

    names: list[str]
    centres: np.ndarray
    height: float


def row_places(names: Iterable[str], width: float) -> RowPlaces:
    """Places of rows whose names are at most `width` inches wide."""
    lines = [wrapped(name, width) for name in names]
    heights = np.array([LINE_HEIGHT * (text.count("\n") + 1) + GAP for text in lines])
    ends = np.cumsum(heights)
    return RowPlaces(lines, ends - heights / 2, float(ends[-1]))


def label_rows(axes: Axes, places: RowPlaces) -> None:
    """Writes the names beside the axes, the first row on top."""
    axes.set_yticks(places.centres, places.names, linespacing=1.1)
    axes.set_ylim(places.height, 0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
