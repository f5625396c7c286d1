"""Where the names of points stand in a chart, so that they neither lie on each other nor leave it.

Shapes: P points.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

ROOM = 0.08
"""Share of an axis on either side of the points."""
WIDTH, HEIGHT = 440.0, 260.0
"""Pixels of the area that a chart of half the page's width draws in, for which names are placed."""
LETTER, LINE, GAP = 6.3, 13.0, 6.0
"""Pixels of a letter, of a line of text, and between a point and its name."""
PLACES = ("top left", "bottom right", "top right", "bottom left")
ASIDE = ("bottom right", "top right", "bottom left", "top left")
"""Beside a point, the better ones first: of a front that rises to the right, no point is above it on the left."""
STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9))
"""Round numbers of a decade, few to many."""


@dataclass(frozen=True)
class ChartAxis:
    """Its ends, as logarithms to base 10 where it is logarithmic."""

    low: float
    high: float
    log: bool

    def share(self, values: pd.Series[float]) -> np.ndarray:
        """[P] values -> [P], 0 at the low end, 1 at the high one."""
        scaled = np.log10(values.to_numpy(float)) if self.log else values.to_numpy(float)
        share: np.ndarray = (scaled - self.low) / (self.high - self.low)
        return share

    def layout(self) -> dict[str, Any]:
        """As Plotly has it, with ticks at round numbers that are written out."""
        if not self.log:
            return {"range": [self.low, self.high]}
        decades = [10.0**power for power in range(math.floor(self.low), math.ceil(self.high) + 1)]
        for steps in STEPS:
            ticks = [decade * step for decade in decades for step in steps]
            ticks = [tick for tick in ticks if self.low <= math.log10(tick) <= self.high]
            if len(ticks) >= 4:
                break
        texts = [f"{tick:,.6g}" for tick in ticks]
        return {"type": "log", "range": [self.low, self.high], "tickvals": ticks, "ticktext": texts}


def axis_of(values: pd.Series[float], *, log: bool = False) -> ChartAxis:
    """An axis of all values, with room at both ends. log: logarithmic; values are positive then."""
    low, high = float(values.min()), float(values.max())
    if log:
        low, high = math.log10(low), math.log10(high)
    room = ROOM * (high - low) or 0.1 * abs(high) or 0.1
    return ChartAxis(low - room, high + room, log)


def text_places(points: np.ndarray, names: Mapping[int, str], front: Collection[int]) -> dict[int, str]:
    """{point: one of PLACES} of those names that have a place where they cover no other name and no point.

    points: [P, 2], shares of the axes; names: {point: its name}, the more important first; front: the points on
    the front.
    """
    marks = points * (WIDTH, HEIGHT)
    taken: list[tuple[float, float, float, float]] = []
    places = {}
    for point, name in names.items():
        for place in PLACES if point in front else ASIDE:
            box = _box(marks[point], len(name) * LETTER, place)
            if _is_inside(box) and not any(_overlap(box, other) for other in taken) and _covered(box, marks) == 0:
                taken.append(box)
                places[point] = place
                break
    return places


def _box(mark: np.ndarray, width: float, place: str) -> tuple[float, float, float, float]:
    """(left, right, bottom, top) of a name beside a mark."""
    x, y = float(mark[0]), float(mark[1])
    left = x - GAP - width if place.endswith("left") else x + GAP
    bottom = y + 1 if place.startswith("top") else y - 1 - LINE
    return left, left + width, bottom, bottom + LINE


def _is_inside(box: tuple[float, float, float, float]) -> bool:
    return box[0] >= -GAP and box[1] <= WIDTH + GAP and box[2] >= -GAP and box[3] <= HEIGHT + GAP


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def _covered(box: tuple[float, float, float, float], marks: np.ndarray) -> int:
    """How many marks lie within a name."""
    x, y = marks[:, 0], marks[:, 1]
    return int(((x > box[0] - 4) & (x < box[1] + 4) & (y > box[2] - 3) & (y < box[3] + 3)).sum())
