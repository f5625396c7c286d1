"""Runs a suite: one cell after another, each in a child process. Each result is written as soon as its cell ends."""

from __future__ import annotations

import inspect
import io
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench.cache import cache_folder
from grbench.errors import OutputClosed, PluginError, Problems, RunError
from grbench.interfaces import Tracker, optional
from grbench.registry.discovery import Registry
from grbench.report.format import duration, label_of, number, size_text
from grbench.results.claims import claims_in
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
from grbench.run.cell_job import cell_job
from grbench.run.child_process import ChildMessage, End, ForkServer, run_child, terminated_is_interrupted
from grbench.run.memory_plan import memory_text
from grbench.run.neighbours import Neighbours
from grbench.run.places import as_planned, with_present_places
from grbench.run.plan import Plan, PlannedCell
from grbench.run.preparation import prepare, refuse_too_large
from grbench.run.prepare import disk_text, refusal
from grbench.run.progress import PlainProgress, progress_for
from grbench.run.sharing import share
from grbench.run.tune import tune
from grbench.run.tuned_methods import TunedMethod, plan_with_choices, searches_text, trials_folder, with_choices
from grbench.run.weights import with_kept_weights
from grbench.run.whole_cost import note_checkpoint, with_whole_cost
from grbench.suite.suite import load_suite
from grbench.temporary import beside, temporary_folder

if TYPE_CHECKING:
    from rich.console import Console

PREPARATION_LOG = "preparation.log"

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@dataclass(frozen=True)
class RunRequest:
    """What `grbench run` was asked for. suite: a file, or an installed suite's name; timeout: seconds a cell may take;
    oversize: run what is expected not to fit; checkpoint_minutes: between checkpoints within an epoch, 0 = none is ever
    written; keep: what else of a cell is kept, `weights` or nothing; digests: of the
    only cells to run, None = all."""

    suite: str | Path
    overrides: Sequence[str] = ()
    only: Sequence[str] | None = None
    seeds: int | None = None
    device: str = "auto"
    dry_run: bool = False
    force: bool = False
    results: Path = Path("results")
    cache: Path | None = None
    timeout: float | None = None
    oversize: bool = False
    checkpoint_minutes: float = 10.0
    keep: Sequence[str] = ()
    digests: frozenset[str] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a run: every cell's record in the plan's order, and the exit status."""

    records: list[Record]
    code: int


def run_suite(request: RunRequest, console: Console) -> Outcome:
    """Runs what is to do. Exit status: 0 = all cells are fine, 1 = some failed; 130, 143 or 141 = interrupted by
    Ctrl-C, by SIGTERM, or because nobody reads the output.

    Raises GRBenchError, before any cell runs, where the request cannot be met.
    """
    registry = Registry.load(signature_cache=cache_folder(request.cache))
    suite = load_suite(request.suite, request.overrides)
    cells = suite.cells(registry, request.only, request.seeds)
    plan, tuned = plan_with_choices(suite, cells, registry, request.results, force=request.force)
    plan = plan.only(request.digests)
    registry.save_signatures()
    console.file.write(plan.text() + searches_text(tuned) + "\n")
    console.file.flush()
    _check_trackers(plan, registry)
    if request.dry_run:
        _dry_run(plan, request, registry, console)
        return Outcome([], 0)
    progress = progress_for(console)
    try:
        with terminated_is_interrupted():
            try:
                with ForkServer(_modules(plan, registry), note=progress.say) as server:
                    if any(planned.awaits_tuning for planned in plan.cells):
                        _tune(plan, tuned, registry, request, server=server, progress=progress)
                        plan = with_choices(plan, tuned, registry, request.results, force=request.force)
                        progress.say(f"\n{plan.text()}")
                    records = _run(plan, request, server, progress)
            finally:
                progress.close()
    except (KeyboardInterrupt, OutputClosed) as stop:
        kept = (each.finished or _kept(plan, each) for each in plan.cells if not each.awaits_tuning)
        finished = sum(kept)
        console.file.write(
            f"\nInterrupted: {finished} of {len(plan.cells)} cells are finished and kept in {plan.folder}; "
            "the same command goes on from there.\n"
        )
        return Outcome([], getattr(stop, "code", INTERRUPTED))
    return Outcome(records, 1 if any(record.status != "ok" for record in records) else 0)


def _check_trackers(plan: Plan, registry: Registry) -> None:
    """Raises PluginError, naming the method, where a tracker of a cell to run lacks something."""
    problems = Problems()
    for method in {each.cell.method.name: each.cell.method for each in plan.to_run if not each.cell.error}.values():
        for component in method.trackers:
            where = f"{plan.suite.path}: methods.{method.name}.trackers"
            with problems:
                tracker = registry.build("trackers", component, where=where)
                try:
                    optional(tracker, Tracker.check)()
                except PluginError as error:
                    raise PluginError(f"{where}: {error}") from error
    problems.raise_found()


def _modules(plan: Plan, registry: Registry) -> list[str]:
    """The modules that the cells to do need besides the core: their plug-ins', and what torch imports late."""
    able = [planned.cell for planned in plan.to_do if planned.cell.error is None]
    named = {plugin for cell in able for plugin in cell.plugins()}
    modules = {inspect.unwrap(registry.get(*plugin).factory).__module__ for plugin in named}
    # The first optimizer of a process imports torch's compiler, which takes as long as importing all the rest of torch.
    return sorted(modules | {"torch._dynamo" for cell in able if cell.method.stages})


def _tune(
    plan: Plan,
    tuned: Sequence[TunedMethod],
    registry: Registry,
    request: RunRequest,
    *,
    server: ForkServer,
    progress: PlainProgress,
) -> None:
    """Prepares what the trials share, and runs those that are left."""
    waiting = replace(plan, cells=tuple(planned for planned in plan.cells if planned.awaits_tuning))
    _check_writable(trials_folder(plan))
    prepared = prepare(waiting, request, server, progress, plan.folder / PREPARATION_LOG)
    refuse_too_large(prepared, request)
    ready = {**prepared.facts, "peaks": {}, "models": {}}
    run_trial = partial(_run_trial, ready=ready, request=request, server=server, progress=progress)
    tune(plan, tuned, registry, run_trial, progress)


def _run_trial(
    plan: Plan,
    planned: PlannedCell,
    *,
    watch: Callable[[ChildMessage], None],
    place: tuple[int, int],
    ready: Mapping[str, Any],
    request: RunRequest,
    server: ForkServer,
    progress: PlainProgress,
) -> Record:
    """A trial is run as a cell is, and is marked and looks for others as one. plan: of the trials' folder."""
    with Neighbours(cache_folder(request.cache), plan.folder) as neighbours:
        return _run_cell(
            plan,
            planned,
            ready,
            request,
            server=server,
            progress=progress,
            neighbours=neighbours,
            watch=watch,
            place=place,
        )


def _run(plan: Plan, request: RunRequest, server: ForkServer, progress: PlainProgress) -> list[Record]:
    """Prepares what the cells share, runs those to do, and returns every cell's record in the plan's order."""
    ready: dict[str, Any] = {}
    if plan.to_do:  # also where none of them can run: each gets a record that says so
        _check_writable(plan.folder)
    if any(planned.cell.error is None for planned in plan.to_do):
        prepared = prepare(plan, request, server, progress, plan.folder / PREPARATION_LOG)
        refuse_too_large(prepared, request)
        ready = {**prepared.facts, "peaks": {}, "models": {}}
    progress.plan([0.0 if planned.source else planned.seconds for planned in plan.to_do])
    records = {
        planned.blank.digest: with_present_places(plan.folder, planned.blank, planned.former)
        for planned in plan.cells
        if planned.finished and planned.former
    }
    claims = claims_in(plan.folder)
    for digest in [each for each in records if each not in claims or not claims[each].lives]:
        remove_checkpoints(plan.folder, digest)  # of a run that was killed when it had written the record
    cells = {planned.blank.digest: planned for planned in reversed(plan.to_do)}  # of equal ones, the first
    for planned, got in share(plan.folder, [each for each in plan.to_do if cells[each.blank.digest] is each], progress):
        digest = planned.blank.digest
        if isinstance(got, Record):
            progress.leave_out(plan.to_do.index(planned), f"{planned.name}: another run has run it, {_summary(got)}")
            records[digest] = got
            continue
        with got, Neighbours(cache_folder(request.cache), plan.folder) as neighbours:
            records[digest] = _run_cell(
                plan, planned, ready, request, server=server, progress=progress, neighbours=neighbours
            )
    for planned in plan.to_do:
        same = records[planned.blank.digest]
        if cells[planned.blank.digest] is not planned:
            progress.say(f"{planned.name}: the same experiment as {same.method}, seed {same.seed}; run once")
    return [as_planned(planned, records[planned.blank.digest]) for planned in plan.cells]


def _dry_run(plan: Plan, request: RunRequest, registry: Registry, console: Console) -> None:
    """Says what disk and memory the cells will take; raises GRBenchError where one cannot run or cannot fit."""
    able = [planned.cell for planned in plan.to_run if planned.cell.error is None]
    if not able:
        return
    from grbench.data.store import STORE_FILE
    from grbench.data.store_writer import store_digest, store_folder

    cache, dataset = cache_folder(request.cache), able[0].dataset
    source = registry.build("datasets", dataset)
    contents = registry.file_contents("datasets", dataset, "dataset")
    folder = store_folder(cache, dataset.name, store_digest(type(source), plan.dataset_digest, contents))
    if not (folder / STORE_FILE).is_file():
        console.file.write(disk_text(source, cache, oversize=request.oversize))
        return
    held = sum(file.stat().st_size for file in folder.iterdir())
    console.file.write(f"Disk: the data is prepared, {size_text(held)} in {folder}\n")
    if not any(cell.method.stages for cell in able):
        return
    said = io.StringIO()
    with temporary_folder() as place, ForkServer() as server:
        ready = prepare(plan, request, server, PlainProgress(said), place / PREPARATION_LOG)
    console.file.writelines(line for line in said.getvalue().splitlines(keepends=True) if line.startswith("note: "))
    console.file.write(f"\n{memory_text(ready.plans)}\n")
    console.file.flush()
    refuse_too_large(ready, request)


def _run_cell(
    plan: Plan,
    planned: PlannedCell,
    ready: Mapping[str, Any],
    request: RunRequest,
    *,
    server: ForkServer,
    progress: PlainProgress,
    neighbours: Neighbours,
    watch: Callable[[ChildMessage], None] = lambda _: None,
    place: tuple[int, int] | None = None,
) -> Record:
    """Runs one cell and returns its record, which is on disk by then, the child's or one that says how it failed.

    watch: gets every event of the child, and may stop it by raising; place: (the cell's number, of how many), counted
    from 1, where that is not its place in the plan.
    """
    which, total = place or (plan.to_do.index(planned) + 1, len(plan.to_do))
    position, heading = which - 1, f"[{which}/{total}] {planned.name}"
    began, started = time.monotonic(), now()
    progress.start(heading, position)
    log = plan.folder / f"{planned.blank.digest}.log"
    curve: list[dict[str, Any]] = []
    keep = _keeper(plan.folder, replace(planned.blank, started=started, curve=curve), neighbours)
    if planned.cell.error is not None:
        record = keep("error", "PluginError", planned.cell.error)
    else:
        job = cell_job(plan, planned, ready, request, started=started)
        heard: dict[str, ChildMessage] = {}

        def listen(event: ChildMessage) -> None:
            heard[event["event"]] = event
            if event["event"] == "peak":  # of the device: measured by the first cell that needs it
                ready["peaks"][event["precision"]] = (event["tflops_per_second"], event["source"])
            elif event["event"] == "curve":
                curve[event["first"] :] = event["rows"]
            elif event["event"] == "note":
                progress.say(f"{planned.name}: {event['text']}")
            elif event["event"] == "checkpoint":
                note_checkpoint(plan.folder, planned.blank.digest, event, neighbours, began)
                return  # no figure of it is of the training
            progress.listen(event)
            watch(event)

        try:
            end = run_child(
                server,
                "grbench.run.run_cell",
                job,
                log=log,
                listen=listen,
                tick=progress.tick,
                timeout=request.timeout,
            )
        except (KeyboardInterrupt, OutputClosed) as stop:
            # What the child wrote stays, also where its last word was not heard any more; and the result that a forced
            # run was to replace is better than none, as is the record of the model that this cell was ranked from.
            finish_write(plan.folder, planned.blank.digest)
            of_weights = planned.weights is not None and planned.weights.digest == planned.blank.digest
            if "recorded" not in heard and (of_weights or _kept(plan, planned)):
                remove_other_weights(plan.folder, read_record(record_path(plan.folder, planned.blank.digest)))
            elif "recorded" not in heard:
                keep("interrupted", type(stop).__name__, "interrupted by the user")
            raise
        record = _outcome(end, heard, record_path(plan.folder, planned.blank.digest), request.timeout, keep)
    seconds = time.monotonic() - began
    record = with_whole_cost(plan.folder, record, neighbours, seconds)
    if record.status == "ok":
        remove_checkpoints(plan.folder, record.digest)
        if record.weights:  # later cells with the same model are ranked from it
            ready["models"][record.training_digest] = str(record_path(plan.folder, record.digest))
    progress.end(f"{heading}: {_summary(record)} ({duration(seconds)})", seconds)
    return record


Keep = Callable[..., Record]


def _keeper(folder: Path, blank: Record, neighbours: Neighbours) -> Keep:
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
    if "unkept" in heard:
        raise refusal(heard["unkept"])
    if "recorded" in heard:
        return read_record(path)
    if end.timed_out:
        return keep("timeout", "Timeout", f"stopped after {duration(timeout)} (--timeout)", end.log)
    killed: Status = "killed" if end.code == -signal.SIGKILL and not end.server_lost else "error"
    return keep("oom" if end.oom_killed else killed, "Killed", end.how, end.log)


def _summary(record: Record) -> str:
    if record.status != "ok":
        message = (record.error or {}).get("message", "").strip().partition("\n")[0]
        return f"{record.status}: {message}"
    scores = (
        f"{record.metrics[name].get('label') or label_of(name)} {number(score)}"
        for name, score in (record.scores if shows_scores(record) else record.validation).items()
    )
    return f"ok, {'' if shows_scores(record) else 'validation '}{', '.join(scores)}"


def _kept(plan: Plan, planned: PlannedCell) -> bool:
    try:
        return read_record(record_path(plan.folder, planned.blank.digest)).done
    except RunError:  # there is none, or it was altered
        return False


def _check_writable(folder: Path) -> None:
    """Checks that results can be written before anything runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with beside(folder / "writable") as probe:
            probe.touch()
    except OSError as error:
        raise RunError(
            f"{folder}: results cannot be written there ({error.strerror}); choose another --results"
        ) from error
