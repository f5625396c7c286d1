"""Runs a suite: its cells, each in a child process, one after another or several at once. Each result is written as
soon as its cell ends."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench.cache import cache_folder
from grbench.errors import OutputClosed, PluginError, Problems, RunError
from grbench.interfaces import Tracker, optional
from grbench.registry.discovery import Registry
from grbench.report.format import size_text
from grbench.results.claims import claims_in
from grbench.results.record import Record
from grbench.results.record_files import remove_checkpoints
from grbench.run.attendant import Attendant, is_kept, summary
from grbench.run.backends.backend import Site, SiteRequest, Worker
from grbench.run.backends.by_name import open_site, refuse_options
from grbench.run.backends.child_process import ForkServer, terminated_is_interrupted
from grbench.run.backends.local import LocalWorker
from grbench.run.cell_pool import CellPool
from grbench.run.data_source import build_dataset
from grbench.run.memory_plan import memory_text
from grbench.run.places import as_planned, with_present_places
from grbench.run.plan import Plan, PlannedCell
from grbench.run.preparation import Ready, prepare, refuse_devices, refuse_too_large
from grbench.run.prepare import disk_text
from grbench.run.progress import PlainProgress, progress_for
from grbench.run.run_request import RunRequest
from grbench.run.shared_store import ready_store
from grbench.run.sharing import share
from grbench.run.tune import tune
from grbench.run.tuned_methods import TunedMethod, plan_with_choices, searches_text, trials_folder, with_choices
from grbench.run.worker_pool import WorkerPool
from grbench.suite.suite import load_suite
from grbench.suite.tuning import MAX_TRIALS
from grbench.temporary import beside, temporary_folder

if TYPE_CHECKING:
    from rich.console import Console

PREPARATION_LOG = "preparation.log"

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


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
    refuse_options(_site_request(request, request.results))
    registry = Registry.load(signature_cache=cache_folder(request.cache))
    suite = load_suite(request.suite, request.overrides)
    cells = suite.cells(registry, request.only, request.seeds)
    plan, tuned = plan_with_choices(suite, cells, registry, request.results, force=request.force, cache=request.cache)
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
                with (
                    ForkServer(_modules(plan, registry), note=progress.say) as server,
                    contextlib.closing(_site(plan, request, server, progress)) as site,
                ):
                    if any(planned.awaits_tuning for planned in plan.cells):
                        _tune(plan, tuned, registry, request, site=site, progress=progress)
                        plan = with_choices(
                            plan, tuned, registry, request.results, force=request.force, cache=request.cache
                        )
                        progress.say(f"\n{plan.text()}")
                    records = _run(plan, request, site, progress)
            finally:
                progress.close()
    except (KeyboardInterrupt, OutputClosed) as stop:
        kept = (each.finished or is_kept(plan, each) for each in plan.cells if not each.awaits_tuning)
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


def _site(plan: Plan, request: RunRequest, server: ForkServer, progress: PlainProgress) -> Site:
    """Where the run's work is done; no cluster is reached for nothing."""
    asked = _site_request(request, plan.folder)
    waits = any(planned.awaits_tuning or planned.cell.error is None for planned in plan.to_do)
    return open_site(asked if waits else replace(asked, name="local"), server, note=progress.say)


def _site_request(request: RunRequest, folder: Path) -> SiteRequest:
    return SiteRequest(
        name=request.backend,
        folder=folder,
        device=request.device,
        cache=request.cache,
        jobs=request.jobs,
        address=request.address,
        cpus=request.cpus,
        options=tuple(request.scheduler),
        oversize=request.oversize,
    )


def _tune(
    plan: Plan,
    tuned: Sequence[TunedMethod],
    registry: Registry,
    request: RunRequest,
    *,
    site: Site,
    progress: PlainProgress,
) -> None:
    """Prepares what the trials share, and runs those that are left."""
    waiting = replace(plan, cells=tuple(planned for planned in plan.cells if planned.awaits_tuning))
    _check_writable(trials_folder(plan))
    prepared = prepare(waiting, request, site.worker(), progress, plan.folder / PREPARATION_LOG)
    refuse_devices(waiting, prepared, request)
    refuse_too_large(prepared, request, site)
    ready = _shared(prepared)

    def run_trial(plan: Plan, planned: PlannedCell, worker: Worker, **options: Any) -> Record:
        """A trial is run as a cell is, and is marked and looks for others as one. plan: of the trials' folder."""
        attendant = Attendant(plan, ready, request, progress)
        with worker.beside(cache_folder(request.cache), plan.folder) as beside:
            return attendant.run(planned, worker, beside, **options)

    left = [(method.search.tuning.budget.trials or 1) - len(method.search.trials) for method in tuned]
    progress.plan([None] * sum(max(0, each) for each in left), site.at_once)
    backend = site.backend(prepared.machine, prepared.needs)
    with (
        contextlib.closing(backend),
        WorkerPool[Record](backend, MAX_TRIALS * len(tuned), progress.tick) as pool,
    ):
        tune(plan, tuned, registry, run_trial, progress=progress, pool=pool, needs=prepared.needs)


def _run(plan: Plan, request: RunRequest, site: Site, progress: PlainProgress) -> list[Record]:
    """Prepares what the cells share, runs those to do, and returns every cell's record in the plan's order."""
    prepared = Ready({}, [], {})
    if plan.to_do:  # also where none of them can run: each gets a record that says so
        _check_writable(plan.folder)
    if any(planned.cell.error is None for planned in plan.to_do):
        prepared = prepare(plan, request, site.worker(), progress, plan.folder / PREPARATION_LOG)
        refuse_devices(plan, prepared, request)
        refuse_too_large(prepared, request, site)
    progress.plan([0.0 if planned.source else planned.seconds for planned in plan.to_do], site.at_once)
    records = {
        planned.blank.digest: with_present_places(plan.folder, planned.blank, planned.former)
        for planned in plan.cells
        if planned.finished and planned.former
    }
    claims = claims_in(plan.folder)
    for digest in [each for each in records if each not in claims or not claims[each].lives]:
        remove_checkpoints(plan.folder, digest)  # of a run that was killed when it had written the record
    cells = {planned.blank.digest: planned for planned in reversed(plan.to_do)}  # of equal ones, the first
    to_do = [each for each in plan.to_do if cells[each.blank.digest] is each]
    attendant = Attendant(plan, _shared(prepared), request, progress)
    backend = site.backend(prepared.machine, prepared.needs)
    with contextlib.closing(backend), CellPool(attendant, backend, prepared.needs) as pool:
        for planned, got in share(plan.folder, to_do, progress, is_room=pool.is_room, wait=pool.wait):
            if isinstance(got, Record):
                progress.leave_out(plan.to_do.index(planned), f"{planned.name}: another run has run it, {summary(got)}")
                records[planned.blank.digest] = got
            else:
                pool.start(planned, got)
        records |= pool.finish()
    for planned in plan.to_do:
        same = records[planned.blank.digest]
        if cells[planned.blank.digest] is not planned:
            progress.say(f"{planned.name}: the same experiment as {same.method}, seed {same.seed}; run once")
    return [as_planned(planned, records[planned.blank.digest]) for planned in plan.cells]


def _shared(prepared: Ready) -> dict[str, Any]:
    """What the cells share, to which they add peaks of the device and kept models (`Attendant`)."""
    return {**prepared.facts, "peaks": {}, "models": {}}


def _dry_run(plan: Plan, request: RunRequest, registry: Registry, console: Console) -> None:
    """Says what disk and memory the cells will take; raises GRBenchError where one cannot run or cannot fit."""
    able = [planned.cell for planned in plan.to_run if planned.cell.error is None]
    if not able:
        return
    cache, dataset = cache_folder(request.cache), able[0].dataset
    source = build_dataset(registry, dataset, cache=cache)
    folder = ready_store(source, dataset, registry, cache=cache, digest=plan.dataset_digest)
    if folder is None:
        console.file.write(disk_text(source, cache, oversize=request.oversize))
        return
    held = sum(file.stat().st_size for file in folder.iterdir())
    console.file.write(f"Disk: the data is prepared, {size_text(held)} in {folder}\n")
    if not any(cell.method.stages for cell in able):
        return
    said = io.StringIO()
    with temporary_folder() as place, ForkServer() as server:
        ready = prepare(plan, request, LocalWorker(server), PlainProgress(said), place / PREPARATION_LOG)
    console.file.writelines(line for line in said.getvalue().splitlines(keepends=True) if line.startswith("note: "))
    console.file.write(f"\n{memory_text(ready.plans)}\n")
    console.file.flush()
    refuse_devices(plan, ready, request)
    refuse_too_large(ready, request)


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
