"""How training went: validation scores and losses by epoch, seed by seed."""

from __future__ import annotations

from typing import Any

import pandas as pd

from grbench.report.figures.curves import curves_frame, default_value
from grbench.report.format import number, significant
from grbench.report.html.blocks import Chart, ChartView, Section
from grbench.report.html.drawing import Style, figure, shown, styles
from grbench.report.html.results import Results

TERMS = 6
"""Terms of losses, beside their sum, that can be chosen; methods with many have more than anyone looks through."""


def learning_curves(results: Results) -> Section:
    """One chart, in which a reader chooses the quantity."""
    frame = curves_frame(results.compared)
    if frame.empty:
        return Section(
            "curves", "Learning curves", absent="Learning curves: no cell was trained, so that no epochs are recorded."
        )
    first = default_value(results.compared)
    scores = [name for name in results.compared.metrics if frame["validation"][frame["name"] == name].any()]
    terms = [name for name in frame["name"].unique() if name not in scores and name != "loss"][:TERMS]
    names = sorted([*scores, "loss", *terms], key=lambda name: name != first)
    trained = set(frame["row"])
    style = styles([name for name in results.leaders if name in trained])
    views = [
        _view(results, frame[frame["name"] == name], name, style) for name in names if (frame["name"] == name).any()
    ]
    caption = (
        "Thick: the mean over seeds; thin: each seed. A large mark is the epoch whose state was kept. Losses of "
        "different methods are different quantities; validation scores can be compared."
    )
    return Section(
        "curves",
        "Learning curves",
        "Whether training had converged, how much seeds differ, and which epoch was kept.",
        (Chart("curves", caption, views, choice="Quantity", keyed=True),),
    )


def _view(results: Results, frame: pd.DataFrame, name: str, style: dict[str, Style]) -> ChartView:
    is_score = bool(frame["validation"].any())
    label = f"Validation {results.label(name)}" if is_score else "Loss" if name == "loss" else f"Loss term {name}"
    text = number if is_score else significant
    traces: list[Any] = []
    for row, drawn in style.items():
        of_row = frame[frame["row"] == row]
        if not of_row.empty:
            traces += _traces(row, of_row, drawn, text)
    picture = figure(
        traces,
        xaxis={"title": {"text": "Epoch"}, **({"dtick": 1} if frame["epoch"].max() <= 12 else {})},
        yaxis={"title": {"text": shown(label)}},
        height=420,
    )
    rows = frame["row"].nunique()
    return ChartView(label, picture, f"{label} by epoch of {rows} methods, {frame['epoch'].max()} epochs at most.")


def _traces(row: str, frame: pd.DataFrame, drawn: Style, text: Any) -> list[Any]:
    import plotly.graph_objects as go

    common: dict[str, Any] = {
        "legendgroup": shown(row),
        "name": shown(row),
        "visible": True if drawn.visible else "legendonly",
    }
    traces = []
    seeds = [of_seed for _, of_seed in frame.groupby("seed")]
    if len(seeds) > 1:
        traces += [
            go.Scatter(
                x=of_seed["epoch"],
                y=of_seed["value"],
                mode="lines",
                line={"color": drawn.colour, "width": 1},
                opacity=0.4,
                hoverinfo="skip",
                **common,
            )
            for of_seed in seeds
        ]
    mean = (
        frame.groupby("epoch")
        .agg(value=("value", "mean"), kept=("kept", "any"), seeds=("seed", "nunique"))
        .reset_index()
    )
    traces.append(
        go.Scatter(
            x=mean["epoch"],
            y=mean["value"],
            mode="lines+markers",
            line={"color": drawn.colour, "width": 2.5, "dash": drawn.dash},
            marker={
                "color": drawn.colour,
                "symbol": drawn.symbol,
                "size": [11 if kept else 5 for kept in mean["kept"]],
            },
            hovertext=[
                f"{shown(row)}<br>epoch {epoch}: {text(value)}" + (f", mean of {of} seeds" if of > 1 else "")
                for epoch, value, of in zip(mean["epoch"], mean["value"], mean["seeds"], strict=True)
            ],
            hoverinfo="text",
            **common,
        )
    )
    return traces
