"""One cell as the run sees it: its child is started and heard, and its record is on the disk when it has ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from grbench.errors import OutputClosed, RunError, RunStopped
from grbench.report.format import duration, label_of, number
from grbench.results.kept_weights import with_kept_weights
from grbench.results.places import shows_scores
from grbench.results.record import Record, Status, now
from grbench.results.record_files import (
    finish_write,
    read_record,
    record_path,
    remove_checkpoints,
    remove_other_weights,
    write_record,
)
from grbench.run.backends.backend import Beside, Worker
from grbench.run.backends.child_process import ChildMessage, End
from grbench.run.cell_job import cell_job
from grbench.run.plan import Plan, PlannedCell
from grbench.run.prepare import refusal
from grbench.run.progress import PlainProgress
from grbench.run.run_request import RunRequest
from grbench.run.whole_cost import note_checkpoint, with_whole_cost

LATE_SECONDS = 90.0
"""So long NFS may remember that a file was not there."""


@dataclass(frozen=True)
class Attendant:
    """Attends to cells of a plan, several at once where it is asked to from several threads.

    ready: what the cells share, of which they add the `peaks` of the device and the `models` that were kept.
    """

    plan: Plan
    ready: Mapping[str, Any]
    request: RunRequest
    progress: PlainProgress

    def run(
        self,
        planned: PlannedCell,
        worker: Worker,
        neighbours: Beside,
        *,
        tick: Callable[[], None],
        watch: Callable[[ChildMessage], None] = lambda _: None,
        place: tuple[int, int] | None = None,
        position: int | None = None,
    ) -> Record:
        """Runs one cell and returns its record, which is on disk by then, the child's or one that says how it failed.

        tick: called about twice a second, watch: gets every event of the child; either may stop it by raising. place:
        (the cell's number, of how many), counted from 1, where that is not its place in the plan; position: among what
        progress counts, where that is another one.
        """
        plan, request, progress = self.plan, self.request, self.progress
        which, total = place or (plan.to_do.index(planned) + 1, len(plan.to_do))
        position = which - 1 if position is None else position
        numbered, elsewhere = f"[{which}/{total}] {planned.name}", worker.name is None
        heading = _at(numbered, worker.name)
        began, started = time.monotonic(), now()
        if not elsewhere:
            progress.start(heading, position)
        log = plan.folder / f"{planned.blank.digest}.log"
        curve: list[dict[str, Any]] = []
        keep = _keeper(plan.folder, replace(planned.blank, started=started, curve=curve), neighbours)
        if planned.cell.error is not None:
            record = keep("error", "PluginError", planned.cell.error)
        else:
            ready = {**self.ready, "peaks": {}} if elsewhere else self.ready  # another machine may reach others
            job = cell_job(plan, planned, ready, request, started=started)
            heard: dict[str, ChildMessage] = {}

            def listen(event: ChildMessage) -> None:
                nonlocal heading, began
                heard[event["event"]] = event
                if event["event"] == "peak":  # of the device: measured by the first cell that needs it
                    self.ready["peaks"][event["precision"]] = (event["tflops_per_second"], event["source"])
                elif event["event"] == "curve":
                    curve[event["first"] :] = event["rows"]
                elif event["event"] == "place":
                    began = time.monotonic()  # until then it waited
                    heading = _at(numbered, event["name"])
                    progress.start(heading, position)
                elif event["event"] == "note":
                    progress.say(f"{planned.name}: {event['text']}")
                elif event["event"] == "checkpoint":
                    note_checkpoint(plan.folder, planned.blank.digest, event, neighbours, began)
                    return  # no figure of it is of the training
                progress.listen(event, position)
                watch(event)

            try:
                end = worker.run(
                    "grbench.run.run_cell", job, log=log, listen=listen, tick=tick, timeout=request.timeout
                )
            except (KeyboardInterrupt, OutputClosed) as stop:
                if "place" in heard or not elsewhere:  # else it never began
                    stopped = partial(keep, "interrupted", type(stop).__name__, _why(stop))
                    _keep_what_is_there(plan, planned, heard, stopped)
                raise
            record = _outcome(end, heard, record_path(plan.folder, planned.blank.digest), request.timeout, keep)
        seconds = time.monotonic() - began
        record = with_whole_cost(plan.folder, record, neighbours, seconds)
        if record.status == "ok":
            remove_checkpoints(plan.folder, record.digest)
            if record.weights:  # later cells with the same model are ranked from it
                self.ready["models"][record.training_digest] = str(record_path(plan.folder, record.digest))
        progress.end(f"{heading}: {summary(record)} ({duration(seconds)})", seconds, position)
        return record


def _why(stop: BaseException) -> str:
    """What stopped a cell that was running."""
    return str(stop) if isinstance(stop, RunStopped) else "interrupted by the user"


def _at(cell: str, place: str | None) -> str:
    """The cell and where it runs, where that is worth telling."""
    return f"{cell} ({place})" if place else cell


def _keep_what_is_there(
    plan: Plan, planned: PlannedCell, heard: Mapping[str, ChildMessage], keep: Callable[[], object]
) -> None:
    """Of a cell that was stopped. What the child wrote stays, also where its last word was not heard any more; and the
    result that a forced run was to replace is better than none, as is the record of the model that this cell was ranked
    from. keep: keeps that it was interrupted."""
    digest = planned.blank.digest
    finish_write(plan.folder, digest)
    of_weights = planned.weights is not None and planned.weights.digest == digest
    if "recorded" in heard:
        return
    if of_weights or is_kept(plan, planned):
        remove_other_weights(plan.folder, read_record(record_path(plan.folder, digest)))
    else:
        keep()


Keep = Callable[..., Record]


def _keeper(folder: Path, blank: Record, neighbours: Beside) -> Keep:
    """A function that writes the record of a cell that could not write its own."""

    def keep(status: Status, kind: str, message: str, traceback: str = "") -> Record:
        error = {"type": kind, "message": message, "traceback": traceback}
        cost = {"beside": neighbours.facts()}
        record = with_kept_weights(folder, replace(blank, status=status, error=error, cost=cost, finished=now()))
        write_record(folder, record)
        remove_other_weights(folder, record)
        return record

    return keep


def _outcome(end: End, heard: Mapping[str, ChildMessage], path: Path, timeout: float | None, keep: Keep) -> Record:
    """The record that the child wrote, or one of how it ended without; raises RunError where results cannot be kept."""
    for word in ("unkept", "refused"):
        if word in heard:
            raise refusal(heard[word])
    if "recorded" in heard:
        return _read_soon(path)
    if end.timed_out:
        return keep("timeout", "Timeout", f"stopped after {duration(timeout)} (--timeout)", end.log)
    killed: Status = "killed" if end.code == -signal.SIGKILL and not end.server_lost else "error"
    return keep("oom" if end.oom_killed else killed, "Killed", end.how, end.log)


def _read_soon(path: Path) -> Record:
    """A record that was just written, maybe on another machine, whose files a network shows a while later."""
    deadline = time.monotonic() + LATE_SECONDS
    while not path.is_file() and time.monotonic() < deadline:
        time.sleep(0.5)
    return read_record(path)


def summary(record: Record) -> str:
    """How a cell ended, in a line."""
    if record.status != "ok":
        message = (record.error or {}).get("message", "").strip().partition("\n")[0]
        return f"{record.status}: {message}"
    scores = (
        f"{record.metrics[name].get('label') or label_of(name)} {number(score)}"
        for name, score in (record.scores if shows_scores(record) else record.validation).items()
    )
    return f"ok, {'' if shows_scores(record) else 'validation '}{', '.join(scores)}"


def is_kept(plan: Plan, planned: PlannedCell) -> bool:
    """Whether there is a finished result of the cell."""
    try:
        return read_record(record_path(plan.folder, planned.blank.digest)).done
    except RunError:  # there is none, or it was altered
        return False
