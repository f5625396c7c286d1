"""The names behind the numbers of a figure, as a list below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from grbench.report.plots.style import SMALL, text_width, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE_HEIGHT = SMALL * 1.25 / 72
GAP, MARGIN = 0.12, 0.05
"""Inches between columns, and around the list."""
MOST_COLUMNS = 6
DIGIT = "\u2007"
"""A space as wide as a digit."""


class NumberedList:
    """Names with the numbers 1, 2, ... in as many columns as fit into a figure's width, at least two. height: inches
    that it takes, 0 where there are no names."""

    def __init__(self, names: Sequence[str], width: float) -> None:
        self.width = width
        self.columns: list[str] = []
        for count in range(MOST_COLUMNS, 0, -1):
            room = (width - 2 * MARGIN - GAP * (count - 1)) / count
            entries = self._entries(names, room if count == 2 else 99)
            self.columns = ["\n".join(part) for part in np.array_split(np.array(entries, dtype=object), count)]
            if len(names) >= 2 * count and sum(map(text_width, self.columns)) <= room * count:
                break
        lines = max((column.count("\n") + 1 for column in self.columns), default=0)
        self.height = lines * LINE_HEIGHT + 2 * MARGIN if names else 0.0

    @staticmethod
    def _entries(names: Sequence[str], room: float) -> list[str]:
        digits = len(str(len(names)))
        indent = DIGIT * (digits + 1)
        width = room - text_width(indent)
        return [
            f"{str(number).rjust(digits, DIGIT)}{DIGIT}" + wrapped(name, width).replace("\n", f"\n{indent}")
            for number, name in enumerate(names, 1)
        ]

    def write(self, figure: Figure) -> None:
        """Writes the list at the figure's lower end."""
        height = float(figure.get_size_inches()[1])
        left = MARGIN
        for column in self.columns if self.height else []:
            for place, line in enumerate(column.split("\n"), 1):
                y = (self.height - MARGIN - place * LINE_HEIGHT) / height
                figure.text(left / self.width, y, line, va="baseline", size=SMALL, in_layout=False)
            left += text_width(column) + GAP
