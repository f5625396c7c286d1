"""Axes of costs: units in the size of the values, and logarithmic ones with plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from grbench.report.figures.pareto import Cost
from grbench.report.format import significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGER_UNITS = {
    "s": (("s", 1.0), ("min", 60.0), ("h", 3600.0)),
    "B": (("MiB", 2.0**20), ("GiB", 2.0**30)),
    "ms": (("ms", 1.0), ("s", 1000.0)),
    "": (("", 1.0), ("thousands", 1e3), ("millions", 1e6), ("billions", 1e9)),
}
"""{unit of the records: (unit on an axis, its size), the smallest first}."""
LOGARITHMIC = 8.0
"""Axes whose largest value is so many times the smallest are logarithmic."""


@dataclass(frozen=True)
class Scale:
    """unit: on the axis; size: in the unit of the records."""

    unit: str
    size: float


def cost_scale(cost: Cost, largest: float) -> Scale:
    """The unit of a cost's axis. largest: of the values to be shown."""
    return largest_unit(LARGER_UNITS[cost.unit], largest)


def largest_unit(units: Sequence[tuple[str, float]], largest: float) -> Scale:
    """The last of these units of which the largest value is at least two, else the first."""
    return Scale(*next((each for each in reversed(units) if largest >= 2 * each[1]), units[0]))


def set_cost_axis(axes: Axes, cost: Cost, scale: Scale, values: pd.Series) -> None:
    """The horizontal axis of a cost. values: in the scale's unit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    positive = values[values > 0]
    if len(positive) and len(positive) == len(values) and positive.max() > LOGARITHMIC * positive.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{cost.label} ({scale.unit})" if scale.unit else cost.label)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else significant(value, 1)
