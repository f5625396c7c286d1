"""Quality against what it costs: training time, memory and search latency, with the rows that no other row beats."""

from __future__ import annotations

import numpy as np
import pandas as pd

from grbench.report.figures.pareto import COSTS, pareto_frame
from grbench.report.format import GIB, number, significant
from grbench.report.html.blocks import Chart, ChartView, Section
from grbench.report.html.drawing import FIRST, MUTED, TEXT, figure, short, shown
from grbench.report.html.labels import axis_of, text_places
from grbench.report.html.results import Results

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


def _view(results: Results, metric: str, cost: str, frame: pd.DataFrame) -> ChartView:
    import plotly.graph_objects as go

    unit, size = UNITS[COSTS[cost].unit]
    points = frame[frame["cost"].notna()].assign(cost=lambda each: each["cost"] / size)
    points = points.sort_values("cost", ignore_index=True)
    front = points[points["on_front"]]
    log = bool((points["cost"] > 0).all())
    costs = axis_of(points["cost"], log=log)
    values = axis_of(pd.concat([points[name].dropna() for name in ("value", "low", "high")]))
    labelled = points if len(points) <= LABELLED else front
    labelled = labelled.sort_values("on_front", ascending=False, kind="stable")
    places = text_places(
        np.column_stack([costs.share(points["cost"]), values.share(points["value"])]),
        {int(point): short(name) for point, name in zip(labelled.index, labelled["row"], strict=True)},
        set(np.flatnonzero(points["on_front"]).tolist()),
    )
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
    points["place"] = [places.get(at, "") for at in range(len(points))]
    traces += [_points(chosen, unit, on_front=bool(on_front)) for on_front, chosen in points.groupby("on_front")]
    picture = figure(
        traces,
        xaxis={"title": {"text": unit}, **costs.layout()},
        yaxis={"title": {"text": shown(results.heading(metric))}, **values.layout()},
        height=340,
    )
    on_front = ", ".join(front["row"])
    alt = f"{results.label(metric)} against {COSTS[cost].label}; on the front, cheapest first: {on_front}"
    return ChartView(results.label(metric), picture, alt)


def _points(points: pd.DataFrame, unit: str, *, on_front: bool) -> object:
    import plotly.graph_objects as go

    colour = FIRST if on_front else MUTED
    return go.Scatter(
        x=points["cost"],
        y=points["value"],
        error_y={"array": (points["high"] - points["value"]).fillna(0), "color": colour, "thickness": 1, "width": 0},
        mode="markers+text",
        meta=None if on_front else "aside",
        text=[short(row) if place else "" for row, place in zip(points["row"], points["place"], strict=True)],
        textposition=[place or "top left" for place in points["place"]],
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
