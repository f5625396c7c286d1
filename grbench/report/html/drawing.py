"""What all charts share: colours that colour-blind readers can tell apart, symbols, layout, and texts for Plotly."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grbench.output import printable

COLOURS = 8
"""Of series, `--series-1` and on in `page.css`, which has them for a light and for a dark page."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "triangle-down", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
SHOWN_AT_FIRST = COLOURS
"""Series that are shown before a reader chooses; more than these no eye can tell apart."""
SHORT = 24
"""Characters of a name beside a point."""
ROW_HEIGHT = 34
"""Pixels of a row of a chart with one row a method."""

TEXT, MUTED, LINE, FIRST = "var(--text)", "var(--muted)", "var(--line)", "var(--series-1)"


@dataclass(frozen=True)
class Style:
    """How a series is drawn."""

    colour: str
    symbol: str
    dash: str
    visible: bool


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Each series' style. names: those that matter most first, which get colours of their own and are shown."""
    return {
        name: Style(
            f"var(--series-{place % COLOURS + 1})",
            SYMBOLS[(place + place // COLOURS) % len(SYMBOLS)],
            DASHES[place // COLOURS % len(DASHES)],
            place < SHOWN_AT_FIRST,
        )
        for place, name in enumerate(names)
    }


def shown(text: str) -> str:
    """The text as Plotly shows it unchanged: it takes <b>, <a> and &lt; in any text for markup."""
    return html.escape(printable(text), quote=False)


AXIS = {"gridcolor": LINE, "linecolor": LINE, "zeroline": False, "automargin": True, "title": {"standoff": 10}}
TEMPLATE: dict[str, Any] = {
    "layout": {
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": TEXT},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 16, "t": 12, "b": 8},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "var(--raised)", "bordercolor": LINE, "font": {"color": TEXT}, "align": "left"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": TEXT},
        "xaxis": AXIS,
        "yaxis": AXIS,
        "height": 380,
    },
    # Without Plotly's outline, which is dark on any page.
    "data": {"scatter": [{"type": "scatter", "marker": {"opacity": 1, "line": {"width": 0}}}]},
}
"""What all charts have where they say nothing else. Colours may be variables of `page.css`, which the page replaces
when it draws."""


def figure(traces: Sequence[Any], **layout: Any) -> dict[str, Any]:
    """The figure as JSON has it."""
    import plotly.graph_objects as go

    height = TEMPLATE["layout"]["height"]
    drawn = go.Figure(data=list(traces), layout={"height": height, **layout, "template": TEMPLATE})
    made: dict[str, Any] = json.loads(drawn.to_json())
    return made


def value_axis(ends: Sequence[float | None], title: str) -> dict[str, Any]:
    """The horizontal axis of a chart with one row a method. ends: of all that is drawn, None = not known. Its range is
    given, so that names and marks have the same place at any width."""
    known = [end for end in ends if end is not None]
    low, high = min(known), max(known)
    room = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    return {"title": {"text": shown(title)}, "range": [low - room, high + room]}


def rows_layout(names: Sequence[str], lift: int = 0) -> dict[str, Any]:
    """Of a chart with one row a method, the first on top: a vertical axis, and the names above the rows, because beside
    them, long ones would leave a phone no room. lift: pixels of what is drawn above a row's line."""
    return {
        "height": 70 + ROW_HEIGHT * max(len(names), 2),
        "yaxis": {
            "tickvals": list(range(len(names))),
            "showticklabels": False,
            "ticks": "",
            "range": [len(names) - 0.5, -0.9],
        },
        "annotations": [
            {
                "text": shown(name),
                "xref": "paper",
                "x": 0,
                "xanchor": "left",
                "y": place,
                "yanchor": "bottom",
                "yshift": lift,
                "showarrow": False,
                "font": {"size": 12, "color": TEXT},
            }
            for place, name in enumerate(names)
        ],
    }


def short(name: str) -> str:
    """A name beside a point of a chart."""
    return shown(name if len(name) <= SHORT else f"{name[: SHORT - 1]}…")
