"""How far a suite is: cells that are done, that run somewhere, that failed and that are still to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from grbench.report.format import counted, duration
from grbench.results.claims import ClaimFile, claims_in
from grbench.results.record import now
from grbench.run.plan import Plan, PlannedCell
from grbench.run.tuned_methods import TunedMethod, searches_text, trials_folder

STATES = ("done", "running", "failed", "to do")


@dataclass(frozen=True)
class CellStatus:
    """state: one of STATES; detail: where it runs, or why it failed; left: seconds that it should still take, None
    where that is not known."""

    planned: PlannedCell
    state: str
    detail: str
    left: float | None


@dataclass(frozen=True)
class SuiteStatus:
    """All cells of a plan, and how many processes run some, or trials. searches: a line for each search, and for each
    trial that runs."""

    name: str
    cells: tuple[CellStatus, ...]
    runs: int
    notes: tuple[str, ...] = ()
    searches: str = ""

    def text(self) -> str:
        """As it is printed: a line of totals, one a cell, and what is left."""
        from tabulate import tabulate

        totals = {state: sum(cell.state == state for cell in self.cells) for state in STATES}
        rows = [
            [
                cell.planned.cell.method.name,
                cell.planned.cell.seed,
                cell.state,
                cell.detail,
                "" if cell.left is None else duration(cell.left),
                "" if cell.planned.awaits_tuning else cell.planned.shown.digest,
            ]
            for cell in self.cells
        ]
        headers = ["method", "seed", "state", "", "left", "digest"]
        table = tabulate(rows, headers=headers, maxcolwidths=[40, None, None, 60, None, None], disable_numparse=True)
        counts = ", ".join(f"{count} {state}" for state, count in totals.items())
        notes = "".join(f"note: {note}\n" for note in self.notes)
        heading = f"{self.name}: {counted(len(self.cells), 'cell')}: {counts}"
        return f"{heading}\n\n{table}\n{notes}{self.searches}{self._left()}\n"

    def _left(self) -> str:
        unfinished = [cell for cell in self.cells if cell.state != "done"]
        if not unfinished:
            return "Nothing is left to do."
        known = [cell.left for cell in unfinished if cell.left is not None]
        if not known:
            return "How long the rest takes is not known: no cell like these was finished before."
        rest = len(unfinished) - len(known)
        total = sum(known)
        spread = f", {duration(total / self.runs)} for the {self.runs} runs at work together" if self.runs > 1 else ""
        unknown = f"; {counted(rest, 'cell')} of unknown length not counted" if rest else ""
        return f"Left: about {duration(total)} for one run{spread} (as cells took before{unknown})."


def suite_status(plan: Plan, tuned: Sequence[TunedMethod] = ()) -> SuiteStatus:
    """Of a plan made just now with the choices of its tuned methods, and the claims in its folders."""
    claims = claims_in(plan.folder)
    cells = tuple(
        _status(planned, None if planned.awaits_tuning else claims.get(planned.blank.digest)) for planned in plan.cells
    )
    digests = {cell.planned.blank.digest for cell in cells if cell.state == "running"}
    holders = {claims[digest].holder for digest in digests}
    trials = [claim for claim in claims_in(trials_folder(plan)).values() if claim.lives]
    holders |= {claim.holder for claim in trials}
    searches = searches_text(tuned) + "".join(f"a trial is running ({claim.where})\n" for claim in trials)
    return SuiteStatus(plan.suite.name, cells, len(holders), plan.strays, searches)


def _status(planned: PlannedCell, claim: ClaimFile | None) -> CellStatus:
    left = 0.0 if planned.source else planned.seconds
    if claim is not None and claim.lives:
        gone = _seconds_since(claim.since)
        return CellStatus(planned, "running", claim.where, None if left is None else max(0.0, left - gone))
    if planned.finished:
        return CellStatus(planned, "done", "", None)
    if planned.cell.error:
        return CellStatus(planned, "failed", f"cannot run: {planned.cell.error}", None)
    former = planned.former
    if former is not None and former.status != "ok":
        message = (former.error or {}).get("message", "").strip().partition("\n")[0]
        state = "to do" if former.status == "interrupted" else "failed"
        why = f"{former.status}: {message}" if message else former.status
        return CellStatus(planned, state, why + planned.going_on, left)
    if claim is not None:
        why = f"its run ended without a result ({claim.where}){planned.going_on}"
    else:
        why = planned.state.removeprefix("to do").removeprefix(" again").lstrip(" ,")
    return CellStatus(planned, "to do", why, left)


def _seconds_since(moment: str) -> float:
    try:
        return max(0.0, (datetime.fromisoformat(now()) - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):  # a claim that says no time
        return 0.0
