"""Quality against a cost: a point for each row, with its interval, and the front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from grbench.report.figures.pareto import COSTS
from grbench.report.plots.labels import HEIGHT, Label, area_of, around, on_paper, place_labels, write_label
from grbench.report.plots.numbered_list import NumberedList
from grbench.report.plots.scales import cost_scale, set_cost_axis
from grbench.report.plots.style import (
    COLOURS,
    FAINT,
    INK,
    LINE,
    MARKERS,
    Sheet,
    clean,
    laid_out,
    legend_above,
    new_figure,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHAPE = 0.78
"""Height of the figure by its width, for a column."""
TALLEST = 3.6
NEAR, FAR = 0.31, 1.0
"""Inches from a point to its name, and to its number."""
Numbers = Literal["none", "others", "all"]
FRONT, OTHER, BESIDE = COLOURS[0], FAINT, COLOURS[1]


def pareto_plot(frame: pd.DataFrame, *, heading: str, cost: str, sheet: Sheet, numbers: Numbers = "none") -> Figure:
    """frame: as `figures.pareto` has it, with labels; heading: the metric's; cost: a key of COSTS; sheet: its size;
    numbers: which rows have numbers beside their points, which a list below explains: where names do not fit, those
    that are not on the front, and where that is not enough, all."""
    known = frame[frame["cost"].notna()].reset_index(drop=True)
    scale = cost_scale(COSTS[cost], known["cost"].max())
    known["cost"] /= scale.size
    names = [clean(label) for label in known["label"]]
    listed: list[str] = []
    if numbers != "none":
        named = known["on_front"] & (numbers == "others")
        listed = [name for name, is_named in zip(names, named, strict=True) if not is_named]
        counted = zip(names, named, (~named).cumsum(), strict=True)
        names = [name if is_named else str(number) for name, is_named, number in counted]
    below = NumberedList(listed, sheet.width)
    figure = new_figure(sheet, min(SHAPE * sheet.width, TALLEST) + below.height, below=below.height)
    axes = figure.add_subplot()
    _draw_points(axes, known)
    _draw_front(axes, known[known["on_front"]])
    axes.margins(x=0.1, y=0.1)
    set_cost_axis(axes, COSTS[cost], scale, known["cost"])
    axes.set_ylabel(heading)
    without = frame[frame["cost"].isna()]
    for value in without["value"]:
        axes.axhline(value, color=FAINT, linewidth=LINE, linestyle=(0, (3, 2)), zorder=1)
    legend_above(figure, sheet, columns=3)
    below.write(figure)
    laid_out(figure)
    missing = "not trained" if cost.startswith("train") else "not known"
    tags = _tag_lines(axes, without["value"].to_numpy(), [f"{clean(name)} ({missing})" for name in without["label"]])
    if _name_points(axes, known, names, tags, numbers) or numbers == "all":
        return figure
    return pareto_plot(frame, heading=heading, cost=cost, sheet=sheet, numbers="others" if numbers == "none" else "all")


def _draw_points(axes: Axes, known: pd.DataFrame) -> None:
    machines = list(dict.fromkeys(known["hardware"]))
    axes.vlines(known["cost"], known["low"], known["high"], color=FAINT, linewidth=LINE * 0.7, zorder=2)
    kinds = (
        (known["on_front"] & ~known["beside"], FRONT, FRONT, "Pareto front"),
        (~known["on_front"] & ~known["beside"], OTHER, "white", "other rows"),
        (known["beside"], BESIDE, "white", "measured beside other cells"),
    )
    for of, colour, fill, meaning in kinds:
        for place, machine in enumerate(machines):
            part = known[of & (known["hardware"] == machine)]
            if part.empty:
                continue
            where = f", machine {chr(ord('a') + place)}" if len(machines) > 1 else ""
            axes.plot(
                part["cost"],
                part["value"],
                MARKERS[place % len(MARKERS)],
                color=colour,
                markersize=4,
                markerfacecolor=fill,
                markeredgewidth=LINE,
                label=meaning + where,
                zorder=3,
            )


def _draw_front(axes: Axes, front: pd.DataFrame) -> None:
    for _, part in front.groupby(["hardware", "beside"], sort=False):
        ordered = part.sort_values(["cost", "value"])
        axes.step(ordered["cost"], ordered["value"], where="post", color=FRONT, linewidth=LINE, zorder=1)


def _tag_lines(axes: Axes, values: np.ndarray, texts: list[str]) -> np.ndarray:
    """Writes what the horizontal lines at these values are at their right ends; returns the texts' boxes [n, 4]."""
    area = area_of(axes)
    left, boxes = axes.get_xlim()[0], []
    for value, text in zip(values, texts, strict=True):
        y = on_paper(axes, np.array([[left, value]]))[0, 1]
        box = (area[2] - text_width(text), y + 0.02, area[2], y + 0.02 + HEIGHT)
        write_label(axes, Label(box[0], box[1], text), np.array([area[2], y]), FAINT)
        boxes.append(box)
    return np.array(boxes).reshape(-1, 4)


def _name_points(axes: Axes, known: pd.DataFrame, names: list[str], tags: np.ndarray, numbers: Numbers) -> bool:
    """Writes the names, those on the front first; returns whether all had a place where they cover nothing."""
    points, low, high = (on_paper(axes, known[["cost", end]].to_numpy()) for end in ("value", "low", "high"))
    thin = np.array([0.01, 0.0])
    bars = np.hstack([low - thin, high + thin])
    front = known["on_front"].to_numpy()
    order = np.argsort(~front, kind="stable")
    found = place_labels(
        points[order],
        [names[place] for place in order],
        area_of(axes),
        filled=np.vstack([around(points), tags]),
        crossed=np.vstack([bars[np.isfinite(bars).all(axis=1)], _front_boxes(points[front])]),
        far=NEAR if numbers == "none" else FAR,
        every=numbers != "none",
    )
    for place, label in zip(order, found, strict=True):
        if label is not None:
            write_label(axes, label, points[place], INK if front[place] else FAINT)
    return all(label is not None and not label.covers for label in found)


def _front_boxes(points: np.ndarray) -> np.ndarray:
    """Boxes of the steps between points [n, 2] of the front, in inches."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    start, end = ordered[:-1], ordered[1:]
    lowest, highest = np.minimum(start, end), np.maximum(start, end)
    across = np.column_stack([start[:, 0], start[:, 1] - 0.01, end[:, 0], start[:, 1] + 0.01])
    up = np.column_stack([end[:, 0] - 0.01, lowest[:, 1], end[:, 0] + 0.01, highest[:, 1]])
    return np.vstack([across, up])
