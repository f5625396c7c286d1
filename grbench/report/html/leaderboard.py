"""The section that a reader opens first: all methods, and which of them cannot be told apart."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from grbench.report.costs import cost_kinds
from grbench.report.entries import Column
from grbench.report.format import counted, number
from grbench.report.html.blocks import Chart, ChartView, Entry, Grid, Heading, Notes, Section
from grbench.report.html.differences import differences
from grbench.report.html.drawing import FIRST, MUTED, TEXT, figure, rows_layout, shown, value_axis
from grbench.report.html.results import Results
from grbench.report.scores import RowScore

LEAD = (
    "Every method with its mean and 95 % interval. Bold is the best and all that cannot be told from it; click a "
    "heading to sort."
)


CAUTIONS = ("Unreachable", "Hardware differs")
"""What lines of the footer begin with that stand above the table: without them, rows are misread."""


def leaderboard(results: Results) -> Section:
    """The table, what it comes to in words, and its intervals as a picture."""
    said = [*verdicts(results), *(line for line in results.table.footer if line.startswith(CAUTIONS))]
    charts = [chart for chart in (_chart(results), differences(results)) if chart]
    return Section(
        "leaderboard",
        "Leaderboard",
        LEAD,
        (
            *([Notes(said)] if said else []),
            _grid(results),
            Notes(results.table.footer, title="What stands behind these numbers"),
            *charts,
        ),
    )


def verdicts(results: Results) -> list[str]:
    """What can be said of the metrics, a sentence for those of which it is the same."""
    said: dict[tuple[str, str], list[str]] = {}
    for metric in results.compared.metrics:
        known = [
            (row.name, score)
            for row, score in zip(results.compared.rows, results.scores[metric], strict=True)
            if score.mean is not None
        ]
        if known:
            sign = 1 if results.compared.higher_is_better(metric) else -1
            name, score = max(known, key=lambda each: sign * (each[1].mean or 0.0))
            others = [other for other, each in known if each.best and other != name]
            what = (
                _told_apart(others, len(known))
                if score.best
                else "; nothing recorded says whether others differ from it"
            )
            said.setdefault((name, what), []).append(f"{results.label(metric)} ({_interval(score)})")
    return [f"{name} has the best mean by {_joined(metrics)}{what}." for (name, what), metrics in said.items()]


def _told_apart(others: Sequence[str], rows: int) -> str:
    if not others:
        return f", and is better than each of the {counted(rows - 1, 'other row')}" if rows > 1 else ""
    listed = _joined([*others[:4], *([f"{len(others) - 4} more"] if len(others) > 4 else [])])
    return f"; {listed} cannot be told from it"


def _joined(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _interval(score: RowScore) -> str:
    width = score.half_width
    return number(score.mean) + ("" if width is None else f" ± {number(width)}")


def _grid(results: Results) -> Grid:
    table = results.table
    costs = {kind.name for kind in cost_kinds(results.compared.records)}
    headings = [Heading(column.title, column.numeric, _part(column, costs)) for column in table.columns]
    rows = []
    for entries, values in zip(table.rows, table.values, strict=True):
        numbers = [values.get(column.values[0]) if column.numeric else None for column in table.columns]
        rows.append(
            [
                Entry(entry.text, order, entry.spread, entry.mark, entry.best)
                for entry, order in zip(entries, numbers, strict=True)
            ]
        )
    return Grid(f"{len(rows)} methods", headings, rows, filters=True)


def _part(column: Column, costs: Container[str]) -> str:
    """Which columns it is shown and hidden with; empty for the methods."""
    if column.name == "method":
        return ""
    if column.metric or column.name.endswith(" published"):
        return "scores"
    if column.name in costs:
        return "costs"
    return "validation" if column.name == "trials" or column.name.startswith("validation ") else "run"


def _chart(results: Results) -> Chart | None:
    views = [view for metric in results.main_first if (view := _intervals(results, metric))]
    if not views:
        return None
    return Chart(
        "intervals",
        "Means with 95 % intervals. Filled: the best, and what cannot be told from it; dotted line: the "
        "baseline. Where intervals overlap, the test in the table decides, because it pairs both methods' users.",
        views,
        choice="Metric",
    )


def _intervals(results: Results, metric: str) -> ChartView | None:
    import plotly.graph_objects as go

    by_name = dict(zip((row.name for row in results.compared.rows), results.scores[metric], strict=True))
    known = {name: score for name, score in by_name.items() if score.mean is not None}
    if not known:
        return None
    sign = -1 if results.compared.higher_is_better(metric) else 1
    names = sorted(known, key=lambda name: sign * (known[name].mean or 0.0))
    traces = []
    for best in (True, False):
        chosen = [name for name in names if known[name].best == best]
        traces.append(
            go.Scatter(
                x=[known[name].mean for name in chosen],
                y=[names.index(name) for name in chosen],
                error_x={
                    "array": _widths(known, chosen),
                    "color": TEXT if best else MUTED,
                    "thickness": 1.5,
                    "width": 4,
                },
                mode="markers",
                marker={
                    "size": 9,
                    "color": FIRST if best else MUTED,
                    "symbol": "circle" if best else "circle-open",
                    "line": {"width": 2, "color": FIRST if best else MUTED},
                },
                hovertext=[f"{shown(name)}<br>{_interval(known[name])}" for name in chosen],
                hoverinfo="text",
            )
        )
    baseline = known.get(results.compared.first.baseline or "")
    shapes = [] if baseline is None else [_baseline_line(baseline)]
    figure_ = figure(
        traces,
        xaxis=value_axis(_ends(known.values()), results.heading(metric)),
        **rows_layout(names),
        shapes=shapes,
    )
    alt = f"Means and intervals by {results.label(metric)} of {len(names)} methods, best first: " + ", ".join(
        f"{name} {_interval(known[name])}" for name in names[:5]
    )
    return ChartView(results.label(metric), figure_, alt)


def _ends(scores: Iterable[RowScore]) -> list[float | None]:
    """The ends of all intervals."""
    widths = [(score.mean, score.half_width or 0.0) for score in scores if score.mean is not None]
    return [mean + sign * width for mean, width in widths for sign in (-1, 1)]


def _baseline_line(score: RowScore) -> dict[str, object]:
    return {
        "type": "line",
        "x0": score.mean,
        "x1": score.mean,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": MUTED, "width": 1, "dash": "dot"},
    }


def _widths(known: dict[str, RowScore], names: Sequence[str]) -> list[float | None]:
    return [known[name].half_width for name in names]
