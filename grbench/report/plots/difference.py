"""Each row's difference from one of them, with its interval, as a column of points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from grbench.report.plots.rows import label_rows, row_places
from grbench.report.plots.style import COLOURS, FAINT, INK, LINE, TEXT, Sheet, legend_above, new_figure, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_OF_WIDTH = 0.42
"""Share of the figure's width that names may take before they are broken."""


def difference_plot(frame: pd.DataFrame, *, heading: str, against: str, sheet: Sheet) -> Figure:
    """frame: as `figures.difference` has it, with labels; heading: the metric's; against: what the row that others are
    compared with is called; sheet: its size."""
    places = row_places(frame["label"], MOST_OF_WIDTH * sheet.width)
    figure = new_figure(sheet, places.height + 0.75)
    axes = figure.add_subplot()
    axes.axvline(0, color=INK, linewidth=0.6, zorder=1)
    for differs, colour, fill, meaning in (
        (True, COLOURS[0], COLOURS[0], "differs (p < .05 after Holm)"),
        (False, FAINT, "white", "cannot be told apart"),
    ):
        of = frame["differs"] == differs
        if not of.any():
            continue
        part, at = frame[of], places.centres[of.to_numpy()]
        axes.hlines(at, part["low"], part["high"], color=colour, linewidth=LINE, zorder=2)
        axes.plot(
            part["value"],
            at,
            "o",
            color=colour,
            markersize=3.5,
            markerfacecolor=fill,
            markeredgewidth=LINE,
            label=meaning,
            zorder=3,
        )
    label_rows(axes, places)
    axes.grid(axis="x", zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlabel(wrapped(f"{heading}, difference from {against}", 0.9 * sheet.width, TEXT))
    legend_above(figure, sheet, columns=2)
    return figure
