"""How options were chosen: the trials of each tuned method, on validation scores only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grbench.report.format import counted, duration, number, plain
from grbench.report.html.blocks import Chart, ChartView, Entry, Grid, Heading, Notes, Section
from grbench.report.html.drawing import FIRST, MUTED, figure, shown
from grbench.report.html.parallel import parallel_coordinates
from grbench.report.html.results import Results
from grbench.results.record import Record

ABSENT = (
    "Tuning: no method of these records was tuned; the key tuning of a suite searches for the options of its methods, "
    "each with the same budget."
)
SYMBOLS = {"complete": "circle", "pruned": "triangle-down-open", "failed": "x", "running": "circle-open"}


@dataclass(frozen=True)
class Study:
    """The trials of one search, by their numbers. metric: by which they are compared; chosen: number of the trial that
    the records of its method say was chosen, None where they say none."""

    name: str
    trials: Sequence[Mapping[str, Any]]
    metric: str
    higher_is_better: bool
    chosen: int | None


def tuning(results: Results) -> Section:
    """A chart of each search's course, one of the values that were tried, and the trials as a table."""
    studies = _studies(results)
    notes = [line for line in results.compared.chosen.notes if line.startswith(("Tuned", "Budget", "Validation"))]
    if not studies and not any(row.records[0].tuning for row in results.compared.rows):
        return Section("tuning", "Tuning", absent=ABSENT)
    lead = "Which values of their options were tried for the tuned methods. All scores here are of validation."
    if not studies:
        lost = "The trials are not beside these records (folder trials), so that only their outcome is known."
        return Section("tuning", "Tuning", lead, (Notes([*notes, lost]),))
    courses = [_course(results, study) for study in studies]
    values = [view for study in studies if (view := parallel_coordinates(study, results.label(study.metric)))]
    caption = "Each trial's validation score. The line is the best so far, the large mark the trial that was chosen."
    charts = [Chart("trials", caption, courses, choice="Method")]
    if values:
        caption = "Each line is a trial. Dark: the best quarter; thick: the trial that was chosen; dotted: pruned."
        charts.append(Chart("values", caption, values, choice="Method"))
    return Section("tuning", "Tuning", lead, (Notes(notes), *charts, *(_grid(results, study) for study in studies)))


def _studies(results: Results) -> list[Study]:
    """The searches of methods that these rows are of, in the rows' order."""
    order = {record.method: place for place, record in reversed(list(enumerate(results.compared.records)))}
    chosen = {record.method: record.tuning for record in results.compared.records if record.tuning}
    by_study: dict[tuple[str, str], list[Record]] = {}
    for record in results.trials:
        if record.trial is not None and record.method in order:
            by_study.setdefault((record.method, str(record.trial["study"])), []).append(record)
    several = {method for method, study in by_study if sum(method == other for other, _ in by_study) > 1}
    studies = []
    for (method, name), records in sorted(by_study.items(), key=lambda each: order[each[0][0]]):
        trials = sorted((record.trial or {} for record in records), key=lambda trial: trial["number"])
        metric, outcome = str(trials[0]["metric"]), chosen.get(method) or {}
        facts = results.compared.metrics.get(metric) or records[0].metrics.get(metric, {})
        values = {trial["number"]: trial["values"] for trial in trials}
        studies.append(
            Study(
                f"{method} (search {name[:6]})" if method in several else method,
                trials,
                metric,
                bool(facts.get("higher_is_better", True)),
                outcome.get("number") if values.get(outcome.get("number")) == outcome.get("values") else None,
            )
        )
    return studies


def _course(results: Results, study: Study) -> ChartView:
    import plotly.graph_objects as go

    known = [trial for trial in study.trials if trial["value"] is not None]
    better = max if study.higher_is_better else min
    complete = [trial for trial in known if trial["state"] == "complete"]
    best: list[float] = []
    for trial in complete:
        best.append(better([*best[-1:], float(trial["value"])]))
    traces = [
        go.Scatter(
            x=[trial["number"] + 1 for trial in complete],
            y=best,
            mode="lines",
            line={"color": FIRST, "shape": "hv", "width": 2},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[trial["number"] + 1 for trial in known],
            y=[trial["value"] for trial in known],
            mode="markers",
            marker={
                "size": [13 if trial["number"] == study.chosen else 8 for trial in known],
                "symbol": [SYMBOLS[trial["state"]] for trial in known],
                "color": [FIRST if trial["state"] == "complete" else MUTED for trial in known],
                "line": {"width": 1.5},
            },
            hovertext=[
                f"trial {trial['number'] + 1}, {trial['state']}: {number(trial['value'])}<br>"
                + shown(values_text(trial)).replace("; ", "<br>")
                for trial in known
            ],
            hoverinfo="text",
        ),
    ]
    label = f"Validation {results.label(study.metric)}"
    picture = figure(
        traces,
        xaxis={"title": {"text": "Trial"}},
        yaxis={"title": {"text": shown(label)}},
        height=340,
    )
    alt = f"{label} of {counted(len(known), 'trial')} of {study.name}" + (
        f", the best {number(best[-1])}" if best else ""
    )
    return ChartView(study.name, picture, alt)


def values_text(trial: Mapping[str, Any]) -> str:
    """`optimizer.lr=0.001; encoder.width=64`"""
    return "; ".join(f"{key}={_value(value)}" for key, value in trial["values"].items())


def _value(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    return plain(value) if isinstance(value, str | int | bool | list) or value is None else json.dumps(value)


def _grid(results: Results, study: Study) -> Grid:
    keys = list(dict.fromkeys(key for trial in study.trials for key in trial["values"]))
    headings = [
        Heading("trial"),
        Heading("state", numeric=False),
        Heading(f"validation {results.label(study.metric)}"),
        *(Heading(key) for key in keys),
        Heading("training"),
    ]
    rows = [
        [
            Entry(str(trial["number"] + 1), trial["number"], best=trial["number"] == study.chosen),
            Entry(trial["state"]),
            Entry(number(trial["value"]), trial["value"], best=trial["number"] == study.chosen),
            *(
                Entry(_value(value), float(value) if isinstance(value, int | float) else None)
                for value in (trial["values"].get(key) for key in keys)
            ),
            Entry(duration(trial["seconds"]), trial["seconds"]),
        ]
        for trial in study.trials
    ]
    title = f"All {counted(len(rows), 'trial')} of {study.name}"
    return Grid(title, headings, rows, title=title)
