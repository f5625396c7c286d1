"""What may be done with results that have just been made, as commands to copy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from grbench.invocation import program
from grbench.report.choice import hidden_records, place_key
from grbench.report.rows import Row, rows_of
from grbench.results.record import Record
from grbench.results.record_files import latest


def next_steps(records: Sequence[Record], folder: Path, installed_suite: str | None = None) -> str:
    """Where the records of a suite lie, and commands that go on from them; "" where none is finished.

    folder: of the records; installed_suite: its name, where it was run by name.
    """
    if not any(record.status == "ok" for record in records):
        return ""
    called, results = program(), shlex.quote(str(folder))
    steps = [
        (f"{called} table {results} --format latex", "this table for a paper; md, csv and svg too"),
        (f"{called} verify {results}", "check that nothing was altered"),
    ]
    if pair := _pair(records):
        first, second = map(shlex.quote, pair)
        steps.insert(0, (f"{called} compare {first} {second} --results {results}", "who wins, by how much, for whom"))
    if installed_suite:
        steps.append((f"{called} suite show {installed_suite} > my_suite.yaml", "start your own suite from this one"))
    wide = max(len(command) for command, _ in steps)
    lines = [f"  {command:<{wide}}  # {what}" for command, what in steps]
    kept = f"Kept in {folder}: of each cell a record (.json), every user's list (.parquet) and a log."
    return "\n".join([kept, "What to do next:", *lines])


def _pair(records: Sequence[Record]) -> tuple[str, str] | None:
    """Two methods that are worth comparing: the best one by the first metric and the suite's baseline, or the second
    best where that is the same or there is none."""
    hidden = hidden_records(records)
    rows = [row for row in rows_of([each for each in latest(records) if place_key(each) not in hidden]) if row.done]
    metric = next((name for row in rows for name in row.done[0].scores), None)
    if metric is None:
        return None
    scores = {row.name: score for row in rows if (score := _score(row, metric)) is not None}
    scored = [row for row in rows if row.name in scores]
    ranked = sorted(scored, key=lambda row: scores[row.name], reverse=True)
    baseline = [row for row in ranked[1:] if row.name == ranked[0].records[0].baseline]
    others = [*baseline, *ranked[1:]]
    return (ranked[0].name, others[0].name) if others else None


def _score(row: Row, metric: str) -> float | None:
    """The mean over the row's seeds, negative where lower is better; None where a seed lacks it."""
    scores = [score for each in row.done if (score := each.scores.get(metric)) is not None]
    if len(scores) < len(row.done):
        return None
    mean = sum(scores) / len(scores)
    return mean if row.done[0].metrics[metric].get("higher_is_better", True) else -mean
