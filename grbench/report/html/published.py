"""What others report of the methods, beside what was measured here."""

from __future__ import annotations

from collections.abc import Sequence

from grbench.report.format import number
from grbench.report.html.blocks import Chart, ChartView, Entry, Grid, Heading, Notes, Section, Tone
from grbench.report.html.drawing import FIRST, figure, rows_layout, shown, value_axis
from grbench.report.html.results import Results
from grbench.report.published import (
    OTHER_PROTOCOL,
    BesideOurs,
    Sources,
    beside_ours,
    difference_text,
    figure_text,
    published_footer,
)

ABSENT = (
    "Published figures: the suites of these records quote none; the key published of a suite has them, each with its "
    "source and what differs."
)
PUBLISHED = "var(--series-2)"


def published_figures(results: Results) -> Section:
    """A chart of both, and a table with differences and sources."""
    beside = beside_ours(results.compared.rows, results.scores)
    if not beside:
        return Section("published", "Published against ours", absent=ABSENT)
    sources = Sources()
    rows = []
    for metric, column in beside.items():
        for row, found in zip(results.compared.rows, column, strict=True):
            if found is not None:
                rows.append([Entry(row.name), Entry(results.label(metric)), *_entries(found, sources)])
    headings = [
        Heading("method", numeric=False),
        Heading("metric", numeric=False),
        Heading("ours"),
        Heading("published"),
        Heading("ours minus published"),
        Heading("our interval", numeric=False),
        Heading("source", numeric=False),
    ]
    views = [_view(results, metric, column) for metric, column in beside.items()]
    return Section(
        "published",
        "Published against ours",
        "Whether the methods reach here what is reported of them elsewhere.",
        (
            Chart(
                "published",
                "Circles: ours, with 95 % intervals. Diamonds: published; open where not comparable.",
                views,
                choice="Metric",
            ),
            Grid("Published figures", headings, rows),
            Notes(published_footer(beside, sources)),
        ),
    )


def _entries(beside: BesideOurs, sources: Sources) -> list[Entry]:
    score, position = beside.score, beside.position
    tone: Tone = "" if position is None or not beside.is_comparable else "good" if position == "inside" else "unsure"
    held = {
        "inside": "holds the published value",
        "above": "lies above it",
        "below": "lies below it",
        None: "not known",
    }
    return [
        Entry(number(score.mean), score.mean, "" if score.half_width is None else number(score.half_width)),
        Entry(
            figure_text(beside.figure),
            beside.figure["value"],
            mark="" if beside.is_comparable else f" {OTHER_PROTOCOL}",
        ),
        Entry(difference_text(beside.difference) or "—", beside.difference),
        Entry(held[position], tone=tone),
        Entry(f"[{sources.number_of(beside.figure)}]"),
    ]


def _view(results: Results, metric: str, column: Sequence[BesideOurs | None]) -> ChartView:
    import plotly.graph_objects as go

    known = {row.name: found for row, found in zip(results.compared.rows, column, strict=True) if found is not None}
    names = sorted(known, key=lambda name: -known[name].figure["value"])
    ours = [known[name].score for name in names]
    traces = [
        go.Scatter(
            x=[score.mean for score in ours],
            y=list(range(len(names))),
            error_x={"array": [score.half_width or 0.0 for score in ours], "color": FIRST, "thickness": 2, "width": 4},
            mode="markers",
            marker={"size": 9, "color": FIRST},
            hovertext=[f"{shown(name)}<br>ours {number(score.mean)}" for name, score in zip(names, ours, strict=True)],
            hoverinfo="text",
        ),
        go.Scatter(
            x=[known[name].figure["value"] for name in names],
            y=list(range(len(names))),
            mode="markers",
            marker={
                "size": 11,
                "color": PUBLISHED,
                "symbol": ["diamond" if known[name].is_comparable else "diamond-open" for name in names],
                "line": {"width": 2, "color": PUBLISHED},
            },
            hovertext=[
                f"{shown(name)}<br>published {shown(figure_text(known[name].figure))}<br>"
                f"{shown(known[name].figure['source'])}"
                for name in names
            ],
            hoverinfo="text",
        ),
    ]
    label = results.label(metric)
    ends = [known[name].figure["value"] for name in names]
    ends += [
        score.mean + sign * (score.half_width or 0.0) for score in ours if score.mean is not None for sign in (-1, 1)
    ]
    picture = figure(
        traces,
        xaxis=value_axis(ends, results.heading(metric)),
        **rows_layout(names),
    )
    alt = f"{label}, ours and published: " + "; ".join(
        f"{name} {number(known[name].score.mean)} and {figure_text(known[name].figure)}" for name in names[:6]
    )
    return ChartView(label, picture, alt)
