"""Scores within groups of users, by the slices that the records have."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from grbench.errors import RunError
from grbench.report.figures.slices import slices_frame
from grbench.report.format import number
from grbench.report.html.blocks import Chart, ChartView, Entry, Grid, Heading, Section
from grbench.report.html.drawing import figure, shown, styles
from grbench.report.html.results import Results
from grbench.report.slices import recorded_slices

SPREAD = 0.7
"""Share of the room between two groups that the marks of a group take."""
ABSENT = (
    "Slices: no record has groups of users; grbench rescore RESULTS --slice NAME adds them from the lists, without "
    "training or searching again."
)


def user_groups(results: Results) -> Section:
    """One chart, in which a reader chooses the slice, and the same numbers as tables."""
    views, grids = [], []
    for name in recorded_slices([record for row in results.compared.rows for record in row.done if _has_lists(record)]):
        try:
            frame = slices_frame(results.compared, name, results.metric)
        except RunError:  # of rows without users' values by this slice, which the sentence below asks for
            continue
        if not frame.empty:
            views.append(_view(results, name, frame))
            grids.append(_grid(results, name, frame))
    if not views:
        return Section("slices", "Slices", absent=ABSENT)
    label = results.label(results.metric or "")
    chart = Chart(
        "slices", f"{label} within each group of users, with 95 % intervals.", views, choice="Groups by", keyed=True
    )
    return Section("slices", "Slices", f"For whom a method works: {label} within groups of users.", (chart, *grids))


def _has_lists(record: Any) -> bool:
    return record.folder is not None and not record.lists_gone


def _view(results: Results, name: str, frame: pd.DataFrame) -> ChartView:
    import plotly.graph_objects as go

    groups = list(dict.fromkeys(zip(frame["group"], frame["users"], strict=True)))
    place = {group: at for at, (group, _) in enumerate(groups)}
    known = set(frame["row"])
    style = styles([row for row in results.leaders if row in known])
    visible = max(sum(drawn.visible for drawn in style.values()), 1)
    traces = []
    for order, (row, drawn) in enumerate(style.items()):
        of_row = frame[frame["row"] == row]
        offset = ((order % visible) + 0.5) / visible - 0.5
        traces.append(
            go.Scatter(
                x=[place[group] + SPREAD * offset for group in of_row["group"]],
                y=of_row["value"],
                error_y={
                    "array": (of_row["high"] - of_row["value"]).fillna(0),
                    "color": drawn.colour,
                    "thickness": 1.5,
                    "width": 0,
                },
                mode="markers",
                marker={"color": drawn.colour, "symbol": drawn.symbol, "size": 9},
                legendgroup=shown(row),
                name=shown(row),
                visible=True if drawn.visible else "legendonly",
                hovertext=[
                    f"{shown(row)}<br>{shown(group)}, {users:,} users: {_interval(value, high)}"
                    for group, users, value, high in _points(of_row, "group", "users", "value", "high")
                ],
                hoverinfo="text",
            )
        )
    picture = figure(
        traces,
        xaxis={
            "tickvals": list(place.values()),
            "ticktext": [f"{shown(group)}<br>{users:,}" for group, users in groups],
            "range": [-0.5, len(groups) - 0.5],
            "showgrid": False,
            "tickangle": 0,
            "tickfont": {"size": 11},
            "title": {"text": f"{shown(name)}, with the number of users"},
        },
        yaxis={"title": {"text": shown(results.heading(results.metric or ""))}, "range": _range(frame)},
        shapes=[
            {
                "type": "line",
                "x0": at + 0.5,
                "x1": at + 0.5,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": "var(--line)", "width": 1},
            }
            for at in range(len(groups) - 1)
        ],
        height=420,
    )
    alt = f"{results.label(results.metric or '')} by {name} in {len(groups)} groups: {', '.join(place)}"
    return ChartView(name, picture, alt)


def _range(frame: pd.DataFrame) -> list[float]:
    """Of the vertical axis; intervals of small groups may reach below zero, where no score is."""
    low, high = frame["low"].fillna(frame["value"]).min(), frame["high"].fillna(frame["value"]).max()
    low = max(low, 0.0) if frame["value"].min() >= 0 else low
    room = 0.06 * (high - low) or 0.1
    return [float(low - room), float(high + room)]


def _points(frame: pd.DataFrame, *names: str) -> Iterator[tuple[Any, ...]]:
    """These columns of each row of the frame."""
    return zip(*(frame[name] for name in names), strict=True)


def _interval(value: float, high: float) -> str:
    return number(value) + ("" if math.isnan(high) else f" ± {number(high - value)}")


def _grid(results: Results, name: str, frame: pd.DataFrame) -> Grid:
    groups = list(dict.fromkeys(zip(frame["group"], frame["users"], strict=True)))
    by_row: dict[str, dict[str, Entry]] = {}
    for row, group, value, high, best in _points(frame, "row", "group", "value", "high", "best"):
        spread = "" if math.isnan(high) else number(high - value)
        by_row.setdefault(row, {})[group] = Entry(number(value), value, spread, best=bool(best))
    rows = [[Entry(row), *(entries.get(group, Entry("—")) for group, _ in groups)] for row, entries in by_row.items()]
    headings = [Heading("method", numeric=False), *(Heading(f"{group} ({users:,})") for group, users in groups)]
    label = results.label(results.metric or "")
    return Grid(f"{label} by {name}", headings, rows, title=f"By {name}, as a table")
