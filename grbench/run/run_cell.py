"""One cell, from data to record; `main` is what a child does.

A failure is a result too: its kind and traceback are written as a record. What cannot be written by a process that is
killed, the runner writes for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from grbench.checkpoint.stage import UnusableCheckpointError
from grbench.cost.environment import environment
from grbench.cost.flops import device_peak, utilisation
from grbench.cost.meter import Meter
from grbench.cost.monitor import Throughput
from grbench.data.store import Store
from grbench.errors import GRBenchError, RunError
from grbench.evaluation.ranking import Ranker
from grbench.evaluation.scoring import score
from grbench.interfaces import Retriever, Tracker, optional
from grbench.registry.discovery import Registry
from grbench.results.kept_weights import weights_of, with_kept_weights
from grbench.results.lists import lists_table
from grbench.results.record import Record, Status, now
from grbench.results.record_files import read_record, remove_other_weights, write_record
from grbench.results.values import with_values
from grbench.run.backends.child_process import ChildMessages
from grbench.run.checkpoints import Checkpoints, checkpoints_of
from grbench.run.data_counts import data_counts
from grbench.run.label_users import label_users
from grbench.run.prepare import split_store
from grbench.run.reporter import Reporter
from grbench.run.rescore_cell import rescore_cell
from grbench.run.weights import (
    costs_of_training,
    figures_of_training,
    keep_weights,
    method_from_weights,
)
from grbench.suite.suite import Cell
from grbench.training.numerics import flush_denormals, seed_everything
from grbench.training.stages import Assembled, train_method
from grbench.training.state import TrainingResult

if TYPE_CHECKING:
    import pyarrow as pa

    from grbench.data.split import Queries, Split
    from grbench.suite.method import Method, Stage
    from grbench.types import Codes, Ranking

NOT_NEEDED = ("keep", "checkpoint", "resume")
"""Phases that no score takes: the search for longer lists, the writing of checkpoints, and what a cell does again that
goes on from one."""

Peak = Callable[[str], tuple[float, str]]
"""TFLOP/s that the device reaches at a precision, and the source of the number."""

OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "std::bad_alloc")
"""How libraries say it that have no exception of their own for it: torch's CPU allocator, CUDA libraries, Faiss."""


def run_cell(
    cell: Cell,
    blank: Record,
    store: Store,
    *,
    registry: Registry,
    device: str,
    report: Reporter,
    peaks: Mapping[str, tuple[float, str]] = MappingProxyType({}),
    checkpoints: Checkpoints | None = None,
    keep: Path | None = None,
    source: Path | None = None,
) -> tuple[Record, pa.Table | None]:
    """Runs the cell; returns its record, filled in, and every user's lists. A trial (`blank.trial`) ends once it is
    trained: no test query is ranked, and there are no lists. Raises whatever a plug-in raises.

    peaks: {precision: (TFLOP/s, source)} of the device as far as earlier cells have measured them; another one is
    measured here and reported. checkpoints: what training goes on from and leaves; keep: the folder that the trained
    model is to be kept in, which takes checkpoints; source: a record whose model is taken, so that nothing is trained.
    """
    meter, throughput = Meter(device), Throughput(torch.device(device))
    former = None if source is None else read_record(source)
    if former is not None:
        meter.go_on_from(costs_of_training(former))
    if checkpoints is not None:
        checkpoints.follow(meter, throughput)

    def peak(precision: str) -> tuple[float, str]:
        if precision in peaks:
            return peaks[precision]
        most, source = device_peak(device, precision)
        report("peak", precision=precision, tflops_per_second=most, source=source)
        return most, source

    seed_everything(cell.seed)
    # What a cell that goes on has to do again is no part of what its preparation cost.
    with meter.phase("prepare" if checkpoints is None or checkpoints.left is None else "resume"):
        report("phase", name="prepare")
        split = split_store(store, cell.protocol, registry)
    if former is not None:
        method, trained = method_from_weights(cell, registry, split, former, device=device)
        if former.digest == blank.digest:
            blank = replace(blank, weights=former.weights, files=weights_of(former))
    else:
        with contextlib.nullcontext() if checkpoints is None else checkpoints.kept_when_stopped():
            method, trained = train_method(
                cell,
                registry,
                split,
                device=device,
                report=report,
                meter=meter,
                throughput=throughput,
                checkpoints=checkpoints,
                log_every=report.log_every,
            )
        if keep is not None and checkpoints is not None:
            report("phase", name="keep weights")
            blank = keep_weights(keep, blank, method, trained, checkpoints.tokenizer)
    if blank.trial is not None:
        record = replace(
            blank,
            status="ok",
            counts=counts(store, split, cell.method, trained, method.codes),
            cost=costs(meter, method, trained, cell.method.stages, peak),
            environment=environment(device),
            tokenizer=dict(method.codes.report),
            curve=trained.curve,
            finished=now(),
        )
        return record, None
    report.keep(method.encoder, store.catalogue.num_items)
    report("phase", name="search")
    ranker = Ranker(
        method.retriever,
        method.encoder,
        split,
        method.codes,
        k=cell.list_length,
        filters=cell.method.filters,
        device=device,
        meter=meter,
        report=report,
    )
    ranking = ranker.rank(split.test)
    values = score(method.metrics, ranking)
    kept, lists = keep_lists(ranker, split.test, ranking, cell, report)
    groups, unlabelled = label_users(cell.slices, ranking, registry)
    machine = environment(device)
    record = replace(
        blank,
        status="ok",
        scores={name: float(each.mean()) for name, each in values.items()},
        lists={**lists, **({"unlabelled": unlabelled} if unlabelled else {})},
        pool={"size": len(split.candidates), "digest": split.pool_digest},
        counts=counts(store, split, cell.method, trained, ranker.codes),
        weights_from=None if former is None else former.weights_from or former.digest,
        # Where the model was trained elsewhere, its share of this device's peak is not asked for.
        cost=costs(
            meter, method, replace(trained, flops_per_step=None) if former else trained, cell.method.stages, peak
        )
        | (checkpoints.costs() if checkpoints else {})
        | (figures_of_training(former, machine) if former else {}),
        environment=machine,
        tokenizer=dict(ranker.codes.report),
        curve=trained.curve,
        finished=now(),
    )
    lists_of_users = lists_table(ranking, store.catalogue.user_ids, store.catalogue.item_ids, kept)
    return record, with_values(lists_of_users, values, groups)


def keep_lists(
    ranker: Ranker, queries: Queries, scored: Ranking, cell: Cell, report: Reporter
) -> tuple[Ranking | None, dict[str, int | str | None]]:
    """The longer lists that the suite asks for, None without; and what the record says of the lists. scored: those that
    scores are computed from.

    A retriever that fails here has done all that the cell's scores need, so that costs the longer lists alone.
    """
    lists: dict[str, int | str | None] = {"scored": ranker.k, "shortest": shortest(scored), "kept": None}
    if (cell.keep_lists or 0) <= ranker.k:
        return None, lists
    report("phase", name="keep longer lists")
    try:
        kept = ranker.rank_longer(queries, cell.keep_lists or 0)
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; the record says what
        traceback.print_exc()
        return None, {**lists, "error": f"{type(error).__name__}: {error}"}
    return kept, {**lists, "kept": kept.items.shape[1], "kept_shortest": shortest(kept)}


def shortest(ranking: Ranking) -> int:
    """The fewest items in one of the lists."""
    return int((ranking.items > 0).sum(axis=1).min(initial=ranking.items.shape[1]))


def counts(store: Store, split: Split, method: Method, trained: TrainingResult, codes: Codes) -> dict[str, Any]:
    """How many of what: those of the data (`data_counts`), and those of the method; `validated_users` are those of the
    validation users that select the best state, `validation_also_tested` counts the validation users who are test users
    too. codes: those that were searched."""
    of_data = data_counts(store, split, method.filters)
    collisions = codes.report.get("colliding_items")
    held_out = of_data["validation_users"]
    validated = [stage.training for stage in method.stages if stage.training.get("validate_every")]
    samples = [options.get("validation_users") or held_out for options in validated]
    return {
        **of_data,
        "validated_users": min(max(samples, default=0), held_out),
        "validation_also_tested": 0
        if split.validation is None
        else int(np.isin(split.validation.histories.users, split.test.histories.users).sum()),
        "parameters": trained.parameters,
        "epochs_run": trained.epochs_run,
        "steps_run": trained.steps_run,
        "best_epoch": trained.best_epoch,
        **({} if collisions is None else {"collisions": collisions}),
    }


def costs(
    meter: Meter, method: Assembled, trained: TrainingResult, stages: Sequence[Stage], peak: Peak
) -> dict[str, Any]:
    """Every phase's cost, and the figures that tables show; None where a phase did not run or cannot be measured."""
    phases = meter.costs()
    precision = stages[-1].training.get("precision", "fp32") if stages else "fp32"
    used = utilisation(trained.flops_per_step, trained.steps_per_second, lambda: peak(precision))
    train_cost, search_cost = phases.get("train", {}), phases.get("search", {})

    needed = [phase for name, phase in phases.items() if name not in NOT_NEEDED]

    def largest(key: str) -> int | None:
        return max((phase[key] for phase in needed if phase.get(key) is not None), default=None)

    joules = [phase["energy_joules"] for phase in needed if phase.get("energy_joules") is not None]
    return {
        "train_seconds": train_cost.get("seconds"),
        "train_users_per_second": train_cost.get("users_per_second"),
        "train_events_per_second": train_cost.get("events_per_second"),
        **used,
        "search_queries_per_second": search_cost.get("queries_per_second"),
        "search_p50_ms": search_cost.get("p50_ms"),
        "search_p99_ms": search_cost.get("p99_ms"),
        "peak_process_bytes": largest("peak_process_bytes"),
        "peak_gpu_bytes": largest("peak_gpu_allocated_bytes"),
        "peak_gpu_reserved_bytes": largest("peak_gpu_reserved_bytes"),
        "energy_joules": sum(joules) if joules else None,
        "phases": phases,
        "index": optional(method.retriever, Retriever.report)(),
    }


def status_of(error: BaseException) -> Status:
    """oom where memory ran out, of whichever kind, else error."""
    cause: BaseException | None = error
    while cause is not None:
        said = str(cause).lower()
        if isinstance(cause, MemoryError | torch.OutOfMemoryError) or (
            isinstance(cause, RuntimeError) and any(words in said for words in OUT_OF_MEMORY)
        ):
            return "oom"
        cause = cause.__cause__ or cause.__context__
    return "error"


def failed(blank: Record, error: BaseException, device: str) -> Record:
    """The record of a cell that raised; a user's mistake needs no traceback to be understood, but keeps it."""
    message = str(error) if isinstance(error, GRBenchError) else f"{type(error).__name__}: {error}"
    return replace(
        blank,
        status=status_of(error),
        error={
            "type": type(error).__name__,
            "message": message,
            "traceback": "".join(traceback.format_exception(error)),
        },
        environment=environment(device),
        finished=now(),
    )


def start_trackers(
    cell: Cell, blank: Record, report: Reporter, *, registry: Registry, results: Path, steps: int
) -> None:
    """Adds the method's trackers to the report, started, or where so many steps are done already, resumed; the report
    says which of them cannot. Each has a folder of its own beside the record. results: the record's folder."""
    folder = results / f"{blank.digest}.d"
    told = {**cell.to_json(), "digest": blank.digest, **({"trial": blank.trial} if blank.trial else {})}
    for component in cell.method.trackers:
        tracker = registry.build("trackers", component)
        own = folder / component.name
        for path in (folder, own, *own.rglob("*")):
            if path.is_symlink():
                raise RunError(f"{path}: is a link; what trackers write stays in the results' folder: remove the link")
        own.mkdir(parents=True, exist_ok=True)
        report.add(component.name, tracker)
        try:
            if steps:
                optional(tracker, Tracker.resume)(own, told, steps)
            else:
                tracker.start(own, told)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            report.leave_out(component.name, tracker, error)


def main(job: Mapping[str, Any], events: ChildMessages) -> int:
    """The child: runs the job, writes the record, says so. Exit status 0 = ok, 1 = failed, 2 = it cannot be kept."""
    flush_denormals()  # first, because threads take this over from the one that starts them
    blank, folder, device = Record.from_json(job["blank"], "the job"), Path(job["folder"]), job["device"]
    os.environ["GRBENCH_CACHE"] = job["cache"]  # what plug-ins keep for later runs lies beside the stores
    report = Reporter(events)
    lists: pa.Table | None = None
    checkpoints: Checkpoints | None = None
    try:
        cell, registry = Cell.from_json(job["cell"]), Registry.load()
        store = Store.open(Path(job["store"]))
        if job["source"]:
            record, lists = rescore_cell(cell, blank, Path(job["source"]), store, registry=registry)
        else:
            checkpoints = checkpoints_of(cell, blank, job, events)

            def attempt() -> tuple[Record, pa.Table | None]:
                nonlocal report
                report = Reporter(events)
                steps = 0 if checkpoints is None else checkpoints.total_steps
                start_trackers(cell, blank, report, registry=registry, results=folder, steps=steps)
                return run_cell(
                    cell,
                    blank,
                    store,
                    registry=registry,
                    device=device,
                    report=report,
                    peaks={precision: (most, source) for precision, (most, source) in job["peaks"].items()},
                    checkpoints=checkpoints,
                    keep=folder if job["keep_weights"] else None,
                    source=Path(job["weights"]) if job["weights"] else None,
                )

            try:
                record, lists = attempt()
            except UnusableCheckpointError as error:
                assert checkpoints is not None
                checkpoints.discard(str(error))
                record, lists = attempt()
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and what it raised is the result
        traceback.print_exc()
        record = replace(failed(blank, error, device), curve=checkpoints.curve if checkpoints else [])
        record = with_kept_weights(folder, record)
    try:
        written = write_record(folder, record, lists)
    except GRBenchError as error:
        events("unkept", kind=type(error).__name__, message=str(error))
        return 2
    remove_other_weights(folder, record)
    events("recorded")
    report.finish(json.loads(written.read_bytes()))
    return 0 if record.status == "ok" else 1
