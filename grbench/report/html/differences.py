"""Each method's difference from the suite's baseline, as a picture."""

from __future__ import annotations

import pandas as pd

from grbench.errors import RunError
from grbench.report.figures.difference import difference_frame
from grbench.report.format import number
from grbench.report.html.blocks import Chart, ChartView
from grbench.report.html.drawing import FIRST, MUTED, TEXT, figure, rows_layout, shown, value_axis
from grbench.report.html.results import Results
from grbench.report.published import difference_text


def differences(results: Results) -> Chart | None:
    """One view a metric; None where there is no baseline, or too few users' values to compare with it."""
    views = [view for metric in results.main_first if (view := _view(results, metric))]
    if not views:
        return None
    return Chart(
        "differences",
        "Paired over users, with 95 % intervals. Filled: significant at 5 % after Holm's correction.",
        views,
        choice="Metric",
        title=f"Difference from {results.compared.first.baseline}, the baseline",
    )


def _view(results: Results, metric: str) -> ChartView | None:
    try:
        frame = difference_frame(results.compared, metric)
    except RunError:  # no baseline, or a row whose users' values are not recorded: the table says so
        return None
    if frame.empty:
        return None
    ascending = not results.compared.higher_is_better(metric)
    frame = frame.sort_values("value", ascending=ascending, ignore_index=True)
    names = frame["row"].tolist()
    picture = figure(
        [_trace(frame, differs) for differs in (True, False)],
        xaxis=value_axis(
            [0.0, *frame["low"].dropna(), *frame["high"].dropna(), *frame["value"]], f"Δ {results.label(metric)}"
        ),
        shapes=[
            {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": MUTED, "width": 1}}
        ],
        **rows_layout(names),
    )
    alt = (
        f"Differences by {results.label(metric)} of {len(names)} methods from {results.compared.first.baseline}: "
        + ", ".join(
            f"{name} {difference_text(value)}" for name, value in zip(names[:5], frame["value"][:5], strict=True)
        )
    )
    return ChartView(results.label(metric), picture, alt)


def _trace(frame: pd.DataFrame, differs: bool) -> object:
    import plotly.graph_objects as go

    chosen = frame[frame["differs"] == differs]
    colour = FIRST if differs else MUTED
    return go.Scatter(
        x=chosen["value"],
        y=chosen.index,
        error_x={
            "array": (chosen["high"] - chosen["value"]).fillna(0),
            "color": TEXT if differs else MUTED,
            "thickness": 1.5,
            "width": 4,
        },
        mode="markers",
        marker={
            "size": 9,
            "color": colour,
            "symbol": "circle" if differs else "circle-open",
            "line": {"width": 2, "color": colour},
        },
        hovertext=[
            f"{shown(row)}<br>{difference_text(value)} ± {number(high - value)}, p {_p(p)}"
            for row, value, high, p in zip(chosen["row"], chosen["value"], chosen["high"], chosen["p"], strict=True)
        ],
        hoverinfo="text",
    )


def _p(p: float) -> str:
    return f"= {number(p)}" if p >= 0.0001 else "< .0001"
