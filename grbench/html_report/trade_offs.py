"""Quality against what it costs: training time, memory and search latency, with the rows that no other row beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from grbench.figures.pareto import COSTS, pareto_frame
from grbench.html_report.blocks import Chart, Section, View
from grbench.html_report.drawing import FIRST, MUTED, TEXT, figure, log_axis, short, shown
from grbench.html_report.results import Results
from grbench.report.format import GIB, number, significant

CHOICES = (
    ("train_cpu_seconds", "train_seconds"),
    ("peak_gpu_bytes", "peak_process_bytes"),
    ("search_p99_ms",),
    ("parameters",),
)
"""Of each kind of cost, the first that any row has is shown. Processor time first: other jobs hardly change it."""
UNITS = {"s": ("minutes", 60.0), "B": ("GiB", float(GIB)), "ms": ("ms", 1.0), "": ("", 1.0)}
"""{unit of the records' values: (unit that is shown, how many of the former it is)}."""
LABELLED = 12
"""With more points than these, only those on the front have their names beside them."""


def trade_offs(results: Results) -> Section:
    """One chart a kind of cost."""
    charts = [chart for names in CHOICES if (chart := _first_with_costs(results, names))]
    return Section(
        "trade-offs",
        "Quality against cost",
        "Up and to the left is better. The line is the Pareto front: no other method is at least as good and as cheap, "
        "and better in one of the two.",
        charts,
        side_by_side=True,
        absent="Quality against cost: no method has both a score and a cost.",
    )


def _first_with_costs(results: Results, names: tuple[str, ...]) -> Chart | None:
    for name in names:
        frames = {metric: pareto_frame(results.compared, metric, name) for metric in results.main_first}
        views = [_view(results, metric, name, frame) for metric, frame in frames.items() if frame["cost"].notna().any()]
        if views:
            frame = next(iter(frames.values()))
            without = frame[frame["cost"].isna()]["row"]
            notes = [f"Without this cost: {', '.join(without)}."] if len(without) else []
            notes += ["Open: measured while other cells ran."] if frame["beside"].any() else []
            return Chart(f"cost-{name}", " ".join(notes), views, choice="Metric", title=COSTS[name].label)
    return None


def _view(results: Results, metric: str, cost: str, frame: pd.DataFrame) -> View:
    import plotly.graph_objects as go

    unit, size = UNITS[COSTS[cost].unit]
    points = frame[frame["cost"].notna()].assign(cost=lambda each: each["cost"] / size).sort_values("cost")
    front = points[points["on_front"]]
    traces = [
        go.Scatter(
            x=same["cost"],
            y=same["value"],
            mode="lines",
            line={"color": FIRST, "width": 1.5, "shape": "hv"},
            hoverinfo="skip",
        )
        for _, same in front.groupby(["hardware", "beside"], sort=False)
    ]
    axis = log_axis(points["cost"].tolist(), room=0.08) if (points["cost"] > 0).all() else {}
    traces += [
        _points(chosen, unit, on_front=bool(on_front), named=bool(on_front) or len(points) <= LABELLED, axis=axis)
        for on_front, chosen in points.groupby("on_front")
    ]
    picture = figure(
        traces,
        xaxis={"title": {"text": unit}, **axis},
        yaxis={"title": {"text": shown(results.heading(metric))}},
        height=340,
    )
    alt = (
        f"{results.label(metric)} against {COSTS[cost].label}; on the front, cheapest first: {', '.join(front['row'])}"
    )
    return View(results.label(metric), picture, alt)


def _points(points: pd.DataFrame, unit: str, *, on_front: bool, named: bool, axis: Mapping[str, Any]) -> object:
    import plotly.graph_objects as go

    colour = FIRST if on_front else MUTED
    return go.Scatter(
        x=points["cost"],
        y=points["value"],
        error_y={"array": (points["high"] - points["value"]).fillna(0), "color": colour, "thickness": 1, "width": 0},
        mode="markers+text" if named else "markers",
        meta=None if on_front else "aside",
        text=[short(name) for name in points["row"]],
        textposition=_text_places(points["cost"].tolist(), axis, on_front=on_front),
        textfont={"size": 11, "color": TEXT if on_front else MUTED},
        cliponaxis=False,
        marker={
            "size": 9,
            "color": colour,
            "symbol": ["circle-open" if beside else "circle" for beside in points["beside"]],
            "line": {"width": 2, "color": colour},
        },
        hovertext=[
            f"{shown(row)}<br>{number(value)}, {significant(cost)} {unit}"
            for row, value, cost in zip(points["row"], points["value"], points["cost"], strict=True)
        ],
        hoverinfo="text",
    )


def _text_places(costs: Sequence[float], axis: Mapping[str, Any], *, on_front: bool) -> list[str]:
    """Where the points' names stand, by ascending cost: towards the middle of the chart, so that they stay inside it.
    Names on the front are above it, where no point is, but for those near the left end."""
    low, high = axis.get("range") or (0.0, max(costs) or 1.0)
    places = []
    for order, cost in enumerate(costs):
        share = ((math.log10(cost) if axis else cost) - low) / (high - low)
        if on_front:
            places.append("top left" if share > 0.35 else "bottom right")
        else:
            places.append(f"{('bottom', 'top')[order % 2]} {'left' if share > 0.6 else 'right'}")
    return places
