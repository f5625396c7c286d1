"""Scores within groups of users: a few rows side by side in each group, many in a panel for each group."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from grbench.errors import RunError
from grbench.report.plots.rows import label_rows, row_places
from grbench.report.plots.style import (
    COLOURS,
    FAINT,
    INK,
    LIGHT,
    LINE,
    SMALL,
    Sheet,
    legend_above,
    line_styles,
    new_figure,
    text_width,
    wrapped,
)
from grbench.report.slices import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SHAPE, TALLEST = 0.72, 3.2
POINT: dict[str, Any] = {"linestyle": "none", "markersize": 3.4, "markeredgewidth": LINE, "zorder": 3}
STEP = 0.055
"""Inches between two rows side by side."""
MOST_ROWS = 9
"""Rows side by side: each has its marker."""
MARGIN = 0.5
"""Inches beside the axes."""
NARROWEST = 0.5
"""Inches of a panel."""
NAMES = 0.3
"""Share of the width that names beside panels may take before they are broken."""


def slices_plot(frame: pd.DataFrame, *, heading: str, by: str, sheet: Sheet) -> Figure:
    """frame: as `figures.slices` has it, with labels; heading: the metric's; by: the slice; sheet: its size. Raises
    RunError where the width is too small for the groups."""
    if frame["label"].nunique() <= MOST_ROWS:
        return _side_by_side(frame, heading, by, sheet)
    return _panels(frame, heading, by, sheet)


def _side_by_side(frame: pd.DataFrame, heading: str, by: str, sheet: Sheet) -> Figure:
    groups, labels = list(dict.fromkeys(frame["group"])), list(dict.fromkeys(frame["label"]))
    names = [wrapped(label, 0.45 * sheet.width) for label in labels]
    columns = max(1, int((sheet.width - 0.2) / (max(map(text_width, names)) + 0.3)))
    each = len(labels) + 2.0
    count = math.ceil(len(groups) * each * STEP / (sheet.width - MARGIN))
    bands = np.array_split(np.array(groups, dtype=object), count)
    height = max(SHAPE / len(bands), 0.5) * min(sheet.width, TALLEST / SHAPE) * len(bands)
    figure = new_figure(sheet, height + 0.13 * -(-len(labels) // columns))
    for axes, band in zip(figure.subplots(len(bands), 1, sharey=True, squeeze=False)[:, 0], bands, strict=True):
        shown = frame[frame["group"].isin(band)]
        _draw_band(axes, shown, list(band), labels)
        axes.set_xlim(-each / 2, (len(bands[0]) - 0.5) * each)  # groups are as wide in all bands
        axes.set_ylabel(heading)
    axes.set_xlabel(by_text(by))
    legend_above(figure, sheet, columns=columns, samples=_samples(names))
    return figure


def _draw_band(axes: Axes, frame: pd.DataFrame, groups: list[str], labels: list[str]) -> None:
    """Draws the groups of one band. labels: of all rows, which have the same styles and places in each band."""
    each = len(labels) + 2.0
    centres = {group: place * each for place, group in enumerate(groups)}
    for place, (label, style) in enumerate(zip(labels, line_styles(len(labels)), strict=True)):
        part = frame[frame["label"] == label]
        at = part["group"].map(centres) + place - (len(labels) - 1) / 2
        axes.vlines(at, part["low"], part["high"], color=style.colour, linewidth=LINE, zorder=2)
        best = part["best"].to_numpy()
        for of, fill in ((~best, "white"), (best, style.colour)):
            axes.plot(
                at[of], part["value"][of], color=style.colour, markerfacecolor=fill, **POINT | {"marker": style.marker}
            )
    if ALL in centres and len(groups) > 1:
        axes.axvline(each / 2, color=LIGHT, linewidth=0.6)
    axes.set_xticks(list(centres.values()), _titles(frame, groups))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", zorder=0)
    axes.set_axisbelow(True)


def _samples(names: list[str]) -> list[Line2D]:
    """The rows' markers, with their names, for a legend."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=style.colour, label=name, **POINT | {"marker": style.marker})
        for name, style in zip(names, line_styles(len(names)), strict=True)
    ]


def _panels(frame: pd.DataFrame, heading: str, by: str, sheet: Sheet) -> Figure:
    groups, labels = list(dict.fromkeys(frame["group"])), list(dict.fromkeys(frame["label"]))
    places = row_places(labels, NAMES * sheet.width)
    panel = (sheet.width - max(map(text_width, places.names)) - 0.1) / len(groups) - 0.06
    if panel < NARROWEST:
        raise RunError(
            f"{len(labels)} rows and {len(groups)} groups by {by} do not fit into {sheet.width:g} inches; --width "
            f"page gives them more, and --rows chooses fewer (up to {MOST_ROWS} are shown side by side)"
        )
    figure = new_figure(sheet, places.height + 0.95)
    every = figure.subplots(1, len(groups), sharey=True, sharex=True, squeeze=False)[0]
    centres = dict(zip(labels, places.centres, strict=True))
    for axes, group, title in zip(every, groups, _titles(frame, groups), strict=True):
        part = frame[frame["group"] == group]
        at, best = part["label"].map(centres), part["best"].to_numpy()
        axes.hlines(at, part["low"], part["high"], color=FAINT, linewidth=LINE * 0.8, zorder=2)
        for of, colour, fill in ((~best, FAINT, "white"), (best, COLOURS[0], COLOURS[0])):
            axes.plot(part["value"][of], at[of], color=colour, markerfacecolor=fill, **POINT | {"marker": "o"})
        axes.set_title(title, fontsize=SMALL, color=INK)
        label_rows(axes, places)
        axes.grid(axis="x", zorder=0)
        axes.set_axisbelow(True)
        axes.locator_params(axis="x", nbins=max(2, int(panel / 0.35)))
    figure.supxlabel(f"{heading} by {by_text(by).lower()}", fontsize=SMALL + 1)
    return figure


def by_text(by: str) -> str:
    """A slice's name as words: `history_length` is `History length`."""
    return by.replace("_", " ").capitalize()


def _titles(frame: pd.DataFrame, groups: list[str]) -> list[str]:
    """The groups with their numbers of users."""
    sizes = dict(zip(frame["group"], frame["users"], strict=True))
    return [f"{group}\n({sizes[group]:,})" for group in groups]
