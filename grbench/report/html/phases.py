"""What each method cost, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence

from grbench.report.costs import machines_of
from grbench.report.format import GIB, duration, significant
from grbench.report.html.blocks import Chart, ChartView, Entry, Grid, Heading, Section
from grbench.report.html.drawing import figure, rows_layout, shown, value_axis
from grbench.report.html.results import Results
from grbench.report.provenance import measured_alone
from grbench.report.rows import Row, mean_of_known
from grbench.results.record import Record

OTHER = "harness and start"
"""Of a cell's seconds, those in no phase."""
PEAKS = ("peak_gpu_reserved_bytes", "peak_process_bytes")


def cost_by_phase(results: Results) -> Section:
    """A chart of seconds, and a table of seconds, processor time and memory."""
    rows = [row for row in results.compared.rows if any(record.cost.get("phases") for record in row.done)]
    phases = sorted((list(record.cost.get("phases", {})) for row in rows for record in row.done), key=len, reverse=True)
    names = list(dict.fromkeys(name for each in phases for name in each))  # those with most have them all in order
    if not names:
        return Section("phases", "Cost by phase", absent="Cost by phase: no cell of these records has measured costs.")
    seconds = {row.name: {name: _mean(row, name, "seconds") for name in names} for row in rows}
    for row in rows:
        seconds[row.name][OTHER] = mean_of_known([record.cost.get("overhead_seconds") for record in _measured(row)])
    chart = Chart(
        "phases",
        "Seconds of a cell by phase, mean over seeds. Everything is measured in the same way for all methods: a "
        "monotonic clock, the device synchronised at both ends.",
        [_view(seconds, [*names, OTHER])],
        keyed=True,
    )
    return Section(
        "phases", "Cost by phase", "Where a cell's time went.", (chart, _grid(rows, seconds, [*names, OTHER]))
    )


def _measured(row: Row) -> Sequence[Record]:
    """The records whose times make the row's mean."""
    return [] if len(machines_of(row)) > 1 else measured_alone(row.done, "train_seconds")[0]


def _mean(row: Row, phase: str, what: str) -> float | None:
    return mean_of_known([record.cost.get("phases", {}).get(phase, {}).get(what) for record in _measured(row)])


def _view(seconds: dict[str, dict[str, float | None]], names: Sequence[str]) -> ChartView:
    import plotly.graph_objects as go

    rows = list(seconds)
    traces = [
        go.Bar(
            x=[seconds[row][name] or 0.0 for row in rows],
            y=list(range(len(rows))),
            orientation="h",
            name=shown(name.replace("_", " ")),
            legendgroup=shown(name),
            width=0.36,
            marker={
                "color": f"var(--series-{place % 8 + 1})",
                "line": {"width": 0},
                "pattern": {"shape": ["", "/", "x", "."][place // 8 % 4]},
            },
            hovertext=[
                f"{shown(row)}<br>{shown(name.replace('_', ' '))}: {duration(seconds[row][name])}" for row in rows
            ],
            hoverinfo="text",
        )
        for place, name in enumerate(names)
        if any(seconds[row][name] for row in rows)
    ]
    totals = {row: sum(value or 0.0 for value in of_row.values()) for row, of_row in seconds.items()}
    picture = figure(
        traces,
        barmode="stack",
        xaxis=value_axis([0.0, *totals.values()], "Seconds"),
        **rows_layout(rows, lift=7),
    )
    longest = max(totals, key=lambda row: totals[row])
    return ChartView(
        "Seconds",
        picture,
        f"Seconds by phase of {len(rows)} methods; the longest is {longest}, {duration(totals[longest])}.",
    )


def _grid(rows: Sequence[Row], seconds: dict[str, dict[str, float | None]], names: Sequence[str]) -> Grid:
    phases = [name for name in names if any(seconds[row.name][name] is not None for row in rows)]
    headings = [
        Heading("method", numeric=False),
        *(Heading(f"{name.replace('_', ' ')}, s") for name in phases),
        Heading("all phases, s"),
        Heading("peak memory, GiB"),
        Heading("energy, kJ"),
    ]
    made = []
    for row in rows:
        total = sum(value or 0.0 for value in seconds[row.name].values())
        peak = max(
            (record.cost.get("peak_gpu_bytes") or record.cost.get("peak_process_bytes") or 0 for record in row.done),
            default=0,
        )
        energy = mean_of_known([record.cost.get("energy_joules") for record in row.done])
        made.append(
            [
                Entry(row.name),
                *(_number(seconds[row.name][name]) for name in phases),
                _number(total),
                _number(peak / GIB if peak else None),
                _number(None if energy is None else energy / 1000),
            ]
        )
    if all(row[-1].order is None for row in made):
        headings, made = headings[:-1], [row[:-1] for row in made]
    return Grid("Mean over seeds; memory the largest", headings, made, title="The same numbers as a table")


def _number(value: float | None) -> Entry:
    return Entry(significant(value), value)
