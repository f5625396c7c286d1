"""A figure of each kind, from records to a file, with a sentence that says what it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from grbench.errors import RunError, cut
from grbench.report.columns import metric_heading
from grbench.report.compared import ComparedRows, compared_rows
from grbench.report.figures.curves import curves_frame, default_value
from grbench.report.figures.difference import difference_frame, reference
from grbench.report.figures.pareto import COSTS, pareto_frame
from grbench.report.figures.selected import check_rows, label_of, selected
from grbench.report.figures.slices import slice_name, slices_frame
from grbench.report.format import counted
from grbench.report.plots.curves import curves_plot
from grbench.report.plots.difference import difference_plot
from grbench.report.plots.pareto import pareto_plot
from grbench.report.plots.slices import by_text, slices_plot
from grbench.report.plots.style import Sheet, clean, inches, paper_style
from grbench.report.plots.write import check_suffix, write_figure
from grbench.report.selection import REST, Pick
from grbench.results.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PlotRequest:
    """What is drawn. metric: also `loss` or one of its terms, of curves; None = as the frames choose; against: the row
    of differences; by: the slice; cost: a key of COSTS; epochs: a key of AXES; rows: those that are shown."""

    metric: str | None = None
    against: str | None = None
    by: str | None = None
    cost: str = "train_seconds"
    over: str = "epoch"
    rows: tuple[Pick, ...] = ()
    width: str = "column"
    title: str | None = None


@dataclass(frozen=True)
class Picture:
    """frame: what is drawn, with labels; draw: makes the figure, in the paper's style; says: what it shows."""

    frame: pd.DataFrame
    draw: Callable[[], Figure]
    says: str


def plot(records: Sequence[Record], kind: str, path: Path, request: PlotRequest) -> list[str]:
    """Writes the figure; returns what it shows, and what of the rows it does not. Raises RunError."""
    check_suffix(path)
    sheet = Sheet(inches(request.width), clean(request.title or ""))
    compared = the_compared(records)
    check_rows(compared, request.rows)
    with paper_style():
        picture = PICTURES[kind](compared, request, sheet)
        if picture.frame.empty:
            raise RunError(f"{compared.title}: none of the chosen rows has what a picture of {kind} shows")
        figure = picture.draw()
        notes = write_figure(figure, path)
    shown = set(picture.frame["row"])
    wanted = {pick.name for pick in request.rows} - {REST} or {row.name for row in compared.rows}
    missing = wanted - shown - ({request.against or compared.first.baseline} if kind == "difference" else set())
    left = [row.name for row in compared.rows if row.name in missing]
    lines = [f"{picture.says}.", *_interval_lines(picture.frame)]
    lines += [f"Not shown, without a value: {', '.join(left)}."] if left else []
    return [*lines, *(f"{note}." for note in (*compared.chosen.notes, *notes))]


def the_compared(records: Sequence[Record]) -> ComparedRows:
    """The rows of the one table that the records make. Raises RunError where they make several."""
    found = compared_rows(records)
    if len(found) > 1:
        parts = "; ".join(f"{each.first.suite}, {counted(len(each.rows), 'row')}" for each in found)
        raise RunError(
            f"the records make {len(found)} tables whose rows cannot be compared, and a picture shows one ({parts}); "
            "give the folder of one suite, or the records of one table"
        )
    return found[0]


def _pareto(compared: ComparedRows, request: PlotRequest, sheet: Sheet) -> Picture:
    metric = compared.metric(request.metric)
    frame = selected(pareto_frame(compared, metric, request.cost), request.rows)
    if not frame.empty and frame["cost"].isna().all():
        known = [name for name in COSTS if pareto_frame(compared, metric, name)["cost"].notna().any()]
        raise RunError(f"--cost {request.cost}: no row has it; there are: {', '.join(known)}")
    heading = _heading(compared, metric)
    says = f"{heading} against {COSTS[request.cost].label.lower()}, means over seeds"
    return Picture(
        frame, lambda: pareto_plot(frame, heading=heading, cost=request.cost, sheet=sheet), says + _machines(frame)
    )


def _curves(compared: ComparedRows, request: PlotRequest, sheet: Sheet) -> Picture:
    every = curves_frame(compared)
    if every.empty:
        raise RunError(f"{compared.title}: no cell has a training curve")
    name = default_value(compared) if request.metric is None else request.metric
    names = list(dict.fromkeys(every["name"]))
    if name not in names:
        raise RunError(f"--metric {cut(name)}: no training curve has it; there are: {', '.join(names)}")
    frame = selected(every[every["name"] == name], request.rows)
    known = frame[frame[request.over].notna()].reset_index(drop=True)
    if len(frame) and known.empty:
        raise RunError(f"--over {request.over}: no record says it; --over epoch is known of all")
    validation = bool(known["validation"].any())
    heading = f"Validation {_heading(compared, name)}" if validation else f"Training {name.replace('_', ' ')}"
    says = f"{heading} at the end of epochs: thin lines are seeds, thick ones their means"
    return Picture(known, lambda: curves_plot(known, heading=heading, by=request.over, sheet=sheet), says)


def _slices(compared: ComparedRows, request: PlotRequest, sheet: Sheet) -> Picture:
    metric = compared.metric(request.metric, of_each_user=True)
    by = slice_name(compared) if request.by is None else request.by
    frame = selected(slices_frame(compared, by, metric), request.rows)
    heading = _heading(compared, metric)
    says = (
        f"{heading} by {by_text(by).lower()}, in brackets the number of users; filled: the best of the group, and what "
        "cannot be told from it (paired over users, Holm's correction over all rows, 5 %)"
    )
    return Picture(frame, lambda: slices_plot(frame, heading=heading, by=by, sheet=sheet), says)


def _difference(compared: ComparedRows, request: PlotRequest, sheet: Sheet) -> Picture:
    metric = compared.metric(request.metric, of_each_user=True)
    against = reference(compared, request.against)
    frame = selected(difference_frame(compared, metric, against), request.rows)
    heading, shown = _heading(compared, metric), clean(label_of(against, request.rows))
    says = (
        f"{heading}: each row minus {against}, paired over users; filled: differs (p < .05 after Holm's correction "
        "over all rows)"
    )
    return Picture(frame, lambda: difference_plot(frame, heading=heading, against=shown, sheet=sheet), says)


PICTURES: dict[str, Callable[[ComparedRows, PlotRequest, Sheet], Picture]] = {
    "pareto": _pareto,
    "curves": _curves,
    "slices": _slices,
    "difference": _difference,
}


def _heading(compared: ComparedRows, metric: str) -> str:
    return clean(metric_heading(metric, compared.metrics.get(metric, {})))


def _machines(frame: pd.DataFrame) -> str:
    known = frame[frame["cost"].notna()]
    machines = list(dict.fromkeys(known["hardware"]))
    text = f"; measured on {machines[0]}" if len(machines) == 1 else ""
    if len(machines) > 1:
        lettered = ", ".join(f"{chr(ord('a') + place)} {machine}" for place, machine in enumerate(machines))
        text = f"; each machine has a front of its own: {lettered}"
    return text + ("; costs measured beside other cells have a front of their own" if known["beside"].any() else "")


def _interval_lines(frame: pd.DataFrame) -> list[str]:
    if "over" not in frame or not frame["over"].notna().any():
        return []
    few_seeds = "users" in set(frame["over"])
    over = "users only: there are too few seeds to know how much these vary" if few_seeds else "users and seeds"
    return [f"Lines through points are 95 % intervals over {over}."]
