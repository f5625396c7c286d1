"""Training curves: a thin line for each seed, a thick one for their mean, named at the right end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from grbench.report.plots.labels import area_of, on_paper
from grbench.report.plots.scales import LARGER_UNITS, largest_unit
from grbench.report.plots.style import (
    FAINT,
    LINE,
    SMALL,
    LineStyle,
    Sheet,
    laid_out,
    line_styles,
    new_figure,
    text_width,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHAPE, TALLEST = 0.72, 3.4
NAMES = 0.36
"""Share of the width that names may take before they are broken."""
LINE_HEIGHT, GAP = SMALL * 1.15 / 72, 0.03
SAMPLE, SPACE = 0.22, 0.05
"""Inches of the sample of a line before its name, and around it."""
NEAR_END = 0.12
"""Share of the axes' width from their right end within which a line that ends is joined with its name."""
MARKED = 8
"""About how many points of a line have a marker."""
AXES = {"epoch": "Epoch", "step": "Training step", "seconds": "Training time"}
"""{column of the frame: what it is called}."""


@dataclass(frozen=True)
class NamedLine:
    """name: on one or more lines; height: inches that it takes; end: where the line ends, in the axes' data."""

    name: str
    height: float
    style: LineStyle
    end: tuple[float, float]


def curves_plot(frame: pd.DataFrame, *, heading: str, by: str, sheet: Sheet) -> Figure:
    """frame: lines of one value as `figures.curves` has it, with labels; heading: the value's; by: a key of AXES;
    sheet: its size."""
    shown = frame[frame[by].notna()]
    unit = ""
    if by == "seconds":
        scale = largest_unit(LARGER_UNITS["s"], shown[by].max())
        shown, unit = shown.assign(seconds=shown[by] / scale.size), f" ({scale.unit})"
    labels = list(dict.fromkeys(shown["label"]))
    names = [wrapped(label, NAMES * sheet.width) for label in labels]
    heights = [LINE_HEIGHT * (name.count("\n") + 1) + GAP for name in names]
    beside = SAMPLE + 3 * SPACE + max(map(text_width, names))
    figure = new_figure(sheet, max(min(SHAPE * sheet.width, TALLEST), sum(heights) + 0.55), beside=beside)
    axes = figure.add_subplot()
    lines = []
    for label, name, tall, style in zip(labels, names, heights, line_styles(len(labels)), strict=True):
        lines.append(NamedLine(name, tall, style, _draw(axes, shown[shown["label"] == label], by, style)))
    axes.set_xlabel(AXES[by] + unit)
    axes.set_ylabel(heading)
    if by == "epoch":
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    laid_out(figure)
    _name_lines(axes, lines)
    return figure


def _draw(axes: Axes, part: pd.DataFrame, by: str, style: LineStyle) -> tuple[float, float]:
    """Draws a row's lines; returns where the thick one ends."""
    seeds = [each.sort_values("epoch") for _, each in part.groupby("seed", sort=True)]
    for each in seeds if len(seeds) > 1 else []:
        axes.plot(each[by], each["value"], color=style.colour, linewidth=LINE * 0.5, alpha=0.45, zorder=2)
    epochs = part.assign(x=part[by]).groupby("epoch", sort=True)
    # Of an epoch that not all seeds have, the mean would be one over other seeds.
    whole = epochs[["x", "value"]].mean()[epochs["seed"].nunique() == len(seeds)]
    axes.plot(whole["x"], whole["value"], markevery=max(1, len(whole) // MARKED), zorder=3, **_look(style))
    return float(whole["x"].iloc[-1]), float(whole["value"].iloc[-1])


def _look(style: LineStyle) -> dict[str, Any]:
    return {
        "color": style.colour,
        "linestyle": style.dashes,
        "linewidth": LINE * 1.4,
        "marker": style.marker,
        "markersize": 3,
    }


def _name_lines(axes: Axes, lines: Sequence[NamedLine]) -> None:
    """Writes each row's name, behind a sample of its line, as near to the height of its end as others leave room."""
    area, figure = area_of(axes), axes.get_figure(root=True)
    assert figure is not None
    points = on_paper(axes, np.array([line.end for line in lines]))
    order = np.argsort(points[:, 1], kind="stable")
    heights = np.array([line.height for line in lines])[order]
    inches: dict[str, Any] = {"transform": figure.dpi_scale_trans, "clip_on": False, "in_layout": False}
    left = area[2] + SPACE
    for place, y in zip(order, spread(points[order, 1], heights, area[1], area[3]), strict=True):
        line, (across, up) = lines[place], points[place]
        if area[2] - across < NEAR_END * (area[2] - area[0]):  # lines that end earlier are found by their samples
            axes.plot([across, left], [up, y], color=FAINT, linewidth=LINE * 0.4, zorder=1, **inches)
        sample = [left, left + SAMPLE / 2, left + SAMPLE]
        axes.plot(sample, [y] * 3, markevery=[1], **_look(line.style), **inches)
        figure.text(left + SAMPLE + SPACE, y, line.name, va="center", size=SMALL, linespacing=1.1, **inches)


def spread(wanted: np.ndarray, heights: np.ndarray, bottom: float, top: float) -> np.ndarray:
    """wanted: [n] middles in ascending order -> [n] middles of things of these heights, one above the other without
    overlap within bottom and top, as near to what is wanted as that allows (least squares)."""
    from scipy.optimize import isotonic_regression

    ends = np.cumsum(heights)
    below = ends - heights / 2  # of each middle, what lies below where all stand on each other
    room = max(top - bottom - ends[-1], 0.0)
    lifted = np.asarray(isotonic_regression(wanted - bottom - below).x)
    return np.asarray(bottom + np.clip(lifted, 0.0, room) + below)
