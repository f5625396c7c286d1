"""One cell, from data to record; `main` is what a child does.

A failure is a result too: its kind and traceback are written as a record. What cannot be written by a process that is
killed, the runner writes for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from grbench.cache import cache_folder
from grbench.checkpoint.stage import UnusableCheckpointError
from grbench.cost.environment import environment
from grbench.cost.flops import device_peak
from grbench.cost.meter import Meter
from grbench.cost.monitor import Throughput
from grbench.data.store import Store
from grbench.distributed.ranks import current
from grbench.distributed.row_table import divided_tables
from grbench.errors import GRBenchError, RunError
from grbench.evaluation.ranking import Ranker
from grbench.evaluation.scoring import score
from grbench.interfaces import Tracker, optional
from grbench.registry.discovery import Registry
from grbench.results.kept_weights import weights_of, with_kept_weights
from grbench.results.lists import lists_table
from grbench.results.record import Record, now
from grbench.results.record_files import read_record, remove_other_weights, write_record
from grbench.results.values import with_values
from grbench.run.backends.child_process import ChildMessages
from grbench.run.cell_costs import costs, spent_by_all
from grbench.run.checkpoints import Checkpoints, checkpoints_of
from grbench.run.data_counts import data_counts
from grbench.run.failed_cell import failed
from grbench.run.label_users import label_users
from grbench.run.prepare import split_store
from grbench.run.rank_processes import RankError, run_ranks
from grbench.run.reporter import Reporter
from grbench.run.rescore_cell import rescore_cell
from grbench.run.weights import (
    costs_of_training,
    device_seconds_of,
    figures_of_training,
    keep_weights,
    method_from_weights,
)
from grbench.suite.suite import Cell
from grbench.training.numerics import flush_denormals, seed_everything
from grbench.training.stages import train_method
from grbench.training.state import TrainingResult

if TYPE_CHECKING:
    import pyarrow as pa

    from grbench.data.split import Queries, Split
    from grbench.suite.method import Method
    from grbench.types import Codes, Ranking


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
        phases = costs_of_training(former)  # of all its devices
        meter.go_on_from(phases, device_seconds=device_seconds_of(former, phases))
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
        spent = spent_by_all(meter)
        if not current().first:
            return blank, None
        record = replace(
            blank,
            status="ok",
            counts=counts(store, split, cell.method, trained, method.codes),
            cost=costs(spent, method, trained, cell.method.stages, peak),
            environment=environment(device),
            tokenizer=dict(method.codes.report),
            curve=trained.curve,
            finished=now(),
        )
        return record, None
    if not divided_tables(method.encoder):  # else it could not give item vectors without the other ranks
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
    kept, lists = keep_lists(ranker, split.test, ranking, cell, report)
    spent = spent_by_all(meter)
    if not current().first:  # it has found its users' lists, and the first rank has them
        return blank, None
    values = score(method.metrics, ranking)
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
            spent, method, replace(trained, flops_per_step=None) if former else trained, cell.method.stages, peak
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
    os.environ["GRBENCH_CACHE"] = str(_cache(job))  # what plug-ins keep for later runs lies beside the stores
    attempt = CellAttempt(job, events)
    try:
        if attempt.devices > 1:
            return run_ranks(attempt.devices, job["device"], attempt.as_rank, curve=lambda: attempt.curve)
        record, lists = attempt.run(job["device"])
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and what it raised is the result
        traceback.print_exc()
        record, lists = attempt.failed(error), None
    return attempt.write(record, lists)


def _cache(job: Mapping[str, Any]) -> Path:
    """The run's, or where it names none, that of this machine."""
    return cache_folder(Path(job["cache"]) if job["cache"] else None)


class CellAttempt:
    """What a child does with its job, in one process or in several ranks, each of which has a copy of this."""

    def __init__(self, job: Mapping[str, Any], events: ChildMessages) -> None:
        self._job, self._events = job, events
        self._blank, self._folder = Record.from_json(job["blank"], "the job"), Path(job["folder"])
        self._report = Reporter(events)
        self._checkpoints: Checkpoints | None = None

    @property
    def devices(self) -> int:
        """How many the cell is run on; one where it is scored from lists."""
        return 1 if self._job["source"] else Cell.from_json(self._job["cell"]).method.devices

    @property
    def curve(self) -> list[dict[str, Any]]:
        """Of the epochs that are done."""
        return self._checkpoints.curve if self._checkpoints else []

    def run(self, device: str) -> tuple[Record, pa.Table | None]:
        """The record, and every user's lists. Raises whatever a plug-in raises."""
        job = self._job
        cell, registry = Cell.from_json(job["cell"]), Registry.load()
        store = Store.open(_cache(job) / job["store"])
        if job["source"]:
            return rescore_cell(cell, self._blank, Path(job["source"]), store, registry=registry)
        checkpoints = self._checkpoints = checkpoints_of(cell, self._blank, {**job, "device": device}, self._events)

        def attempt() -> tuple[Record, pa.Table | None]:
            self._report = Reporter(self._events)
            if current().first:
                steps = 0 if checkpoints is None else checkpoints.total_steps
                start_trackers(cell, self._blank, self._report, registry=registry, results=self._folder, steps=steps)
            return run_cell(
                cell,
                self._blank,
                store,
                registry=registry,
                device=device,
                report=self._report,
                peaks={precision: (most, source) for precision, (most, source) in job["peaks"].items()},
                checkpoints=checkpoints,
                keep=self._folder if job["keep_weights"] else None,
                source=Path(job["weights"]) if job["weights"] else None,
            )

        try:
            return attempt()
        except UnusableCheckpointError as error:
            assert checkpoints is not None
            checkpoints.discard(str(error))
            return attempt()

    def as_rank(self, device: torch.device) -> int:
        """Runs the cell together with the other ranks. The first one writes the record."""
        if not current().first:
            self._events = ChildMessages(open(os.devnull, "w"))  # noqa: SIM115 - for the life of the process
            self.run(str(device))
            return 0
        record, lists = self.run(str(device))
        return self.write(record, lists)

    def failed(self, error: Exception) -> Record:
        """The record of an attempt that raised."""
        record = replace(failed(self._blank, error, self._job["device"]), curve=self.curve)
        if isinstance(error, RankError):
            told = {"type": error.kind, "message": str(error), "traceback": error.said}
            record = replace(record, status=error.status, error=told, curve=error.curve)
        return with_kept_weights(self._folder, record)

    def write(self, record: Record, lists: pa.Table | None) -> int:
        """Writes the record and says so; returns the exit status."""
        try:
            written = write_record(self._folder, record, lists)
        except GRBenchError as error:
            self._events("unkept", kind=type(error).__name__, message=str(error))
            return 2
        remove_other_weights(self._folder, record)
        self._events("recorded")
        self._report.finish(json.loads(written.read_bytes()))
        return 0 if record.status == "ok" else 1
