"""Parallel coordinates of a search: one axis an option, one line a trial."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grbench.report.format import number, plain
from grbench.report.html.blocks import ChartView
from grbench.report.html.drawing import FIRST, MUTED, TEXT, figure, short, shown

if TYPE_CHECKING:
    from grbench.report.html.tuning import Study

SPAN = 100.0
"""Ratio of the largest value to the smallest from which an axis is logarithmic."""
MAX_NAMES = 8
"""Values with a name of their own on an axis without numbers."""


@dataclass(frozen=True)
class Axis:
    """An option's axis. places: of each trial's value, 0 to 1, None where it has none; ticks: (place, text)."""

    name: str
    places: Sequence[float | None]
    ticks: Sequence[tuple[float, str]]


def parallel_coordinates(study: Study, label: str) -> ChartView | None:
    """The picture; None where no trial has ended with a score."""
    import plotly.graph_objects as go

    trials = [trial for trial in study.trials if trial["value"] is not None]
    keys = list(dict.fromkeys(key for trial in trials for key in trial["values"]))
    if not trials or not keys:
        return None
    axes = [_axis(key, [trial["values"].get(key) for trial in trials]) for key in keys]
    axes.append(_axis(f"validation {label}", [trial["value"] for trial in trials], number))
    ranked = sorted(
        (trial for trial in trials if trial["state"] == "complete"),
        key=lambda trial: trial["value"],
        reverse=study.higher_is_better,
    )
    best = {trial["number"] for trial in ranked[: max(1, len(ranked) // 4)]}
    traces = []
    for at, trial in sorted(
        enumerate(trials), key=lambda each: (each[1]["number"] == study.chosen, each[1]["number"] in best)
    ):
        chosen, good = trial["number"] == study.chosen, trial["number"] in best
        traces.append(
            go.Scatter(
                x=list(range(len(axes))),
                y=[axis.places[at] for axis in axes],
                mode="lines+markers",
                line={
                    "color": FIRST if good or chosen else MUTED,
                    "width": 4 if chosen else 1.5,
                    "dash": "dot" if trial["state"] == "pruned" else "solid",
                },
                marker={"size": 5},
                opacity=1.0 if good or chosen else 0.45,
                hovertext=[f"trial {trial['number'] + 1}, {number(trial['value'])}<br>{_details(trial)}"] * len(axes),
                hoverinfo="text",
            )
        )
    ticks = [
        {
            "x": at,
            "y": place,
            "text": short(text),
            "showarrow": False,
            "xanchor": "left",
            "xshift": 6,
            "font": {"size": 11, "color": TEXT},
            "bgcolor": "var(--page)",
        }
        for at, axis in enumerate(axes)
        for place, text in axis.ticks
    ]
    lines = [
        {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "layer": "below", "line": {"color": MUTED, "width": 1}}
        for at in range(len(axes))
    ]
    picture = figure(
        traces,
        xaxis={
            "tickvals": list(range(len(axes))),
            "ticktext": [shown(axis.name.removesuffix(".name").rpartition(".")[2]) for axis in axes],
            "range": [-0.15, len(axes) - 0.45],
            "side": "top",
            "showline": False,
            "ticks": "",
            "showgrid": False,
        },
        yaxis={"visible": False, "range": [-0.06, 1.06]},
        annotations=ticks,
        shapes=lines,
    )
    return ChartView(
        study.name, picture, f"The values of {len(trials)} trials of {study.name}: {', '.join(keys)}, and {label}."
    )


def _details(trial: Mapping[str, Any]) -> str:
    return "<br>".join(shown(f"{key} = {plain(value)}") for key, value in trial["values"].items())


def _axis(name: str, values: Sequence[Any], text: Any = None) -> Axis:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == sum(value is not None for value in values) and numbers:
        low, high = min(numbers), max(numbers)
        text = text or (lambda value: f"{value:.3g}")
        if low == high:
            return Axis(name, [None if value is None else 0.5 for value in values], [(0.5, text(low))])
        log = low > 0 and high / low >= SPAN
        scale = math.log if log else float
        places = [
            None if value is None else (scale(value) - scale(low)) / (scale(high) - scale(low)) for value in values
        ]
        return Axis(name, places, [(0.0, text(low)), (1.0, text(high))])
    names = list(dict.fromkeys(json.dumps(value, sort_keys=True) for value in values))
    step = 1 / max(len(names) - 1, 1)
    place = {each: step * at if len(names) > 1 else 0.5 for at, each in enumerate(names)}
    ticks = [(place[each], plain(json.loads(each))) for each in names[:MAX_NAMES]]
    return Axis(name, [place[json.dumps(value, sort_keys=True)] for value in values], ticks)
