"""Tuning the methods of a suite: trials, each in a child process as a cell's. Those of different methods may run at
once, and those of a method that do not depend on each other.

A trial is trained as a cell with its values is, and ends there: no test query is ranked. Where a record says how that
training went, of a trial or of a cell, it is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from grbench.errors import DataError, PluginError, RunError, SuiteError, first_line
from grbench.registry.discovery import Registry
from grbench.results.facts import short_hash
from grbench.results.identity import cell_digest, cell_identity, lists_digest, training_digest
from grbench.results.record import Record, now
from grbench.results.record_files import finish_write, read_record, read_records, record_path, write_record
from grbench.run.backends.backend import Needs, Worker
from grbench.run.backends.child_process import ChildMessage
from grbench.run.plan import Plan, PlannedCell
from grbench.run.progress import PlainProgress
from grbench.run.sharing import alone
from grbench.run.tuned_methods import TunedMethod, searches_text, trials_folder
from grbench.run.worker_pool import WorkerPool
from grbench.suite.suite import Suite
from grbench.tuning.search import State, Trial, values_text

WAIT_SECONDS = 1.0
"""Between two looks at trials that other runs are at."""
NAMES = ("suite", "method", "order", "title", "baseline", "grid", "published", "also")
"""What a record says of the place of its cell in a suite."""


class RunTrial(Protocol):
    """Runs a planned cell by a worker and returns its record, which is on disk by then. tick: called about twice a
    second, watch: gets every event of the child; either may stop it by raising. place: (its number, of how many),
    counted from 1; position: where it is among all trials, for progress."""

    def __call__(
        self,
        plan: Plan,
        planned: PlannedCell,
        worker: Worker,
        *,
        tick: Callable[[], None],
        watch: Callable[[ChildMessage], None],
        place: tuple[int, int],
        position: int,
    ) -> Record: ...


class Pruned(Exception):
    """The trial is to be stopped."""


def tune(
    plan: Plan,
    tuned: Sequence[TunedMethod],
    registry: Registry,
    run_trial: RunTrial,
    *,
    progress: PlainProgress,
    pool: WorkerPool[Record],
    needs: Mapping[str, Needs] = MappingProxyType({}),
) -> None:
    """Runs the trials that are left of each method, and waits for those that other runs are at. needs: {method: what a
    trial of it takes}."""
    records = [
        record
        for trials in (False, True)
        for record in read_records(
            [plan.folder] if plan.folder.is_dir() else [],
            note=lambda _: None,
            altered=lambda *_: None,  # such a training is done again
            trials=trials,
        )
    ]
    known = {record.training_digest: record for record in records if _is_pruned(record)}
    known |= {record.training_digest: record for record in records if _is_trained(record)}
    left, begun, waited = list(tuned), 0, False
    while left:
        for method in left:
            asked = needs.get(method.name, Needs())
            while pool.is_room(asked) and not method.search.waits and (trial := method.search.claim()) is not None:
                attempt = _Attempt(plan, method, trial, registry, progress=progress, position=begun)
                pool.start(method.name, asked, partial(attempt.run, run_trial, known))
                begun, waited = begun + 1, False
        ended = pool.wait()
        for record in ended or ():
            if _is_trained(record) and not _is_trained(known.get(record.training_digest)):
                known[record.training_digest] = record
        finished = [method for method in left if method.name not in pool.running and method.search.finished]
        left = [method for method in left if method not in finished]
        for method in finished:
            progress.say(searches_text([method]).rstrip())
        if ended is None and not finished:
            if not waited:
                progress.say(f"{left[0].name}: waiting for the trials that other runs are at")
                waited = True
            time.sleep(WAIT_SECONDS)


def _is_pruned(record: Record) -> bool:
    """Whether the record says how a training went that was pruned."""
    return record.status == "ok" and record.trial is not None and record.trial["state"] == "pruned"


def _is_trained(record: Record | None) -> bool:
    """Whether the record says how a whole training with validation went."""
    if record is None:
        return False
    trial = record.trial or {"state": "complete"}
    whole = trial["state"] in ("running", "complete") and "same_as" not in trial
    return record.status == "ok" and whole and bool(record.validation)


class _Attempt:
    """One trial, from its values to its record and its end in the search."""

    def __init__(
        self,
        plan: Plan,
        method: TunedMethod,
        trial: Trial,
        registry: Registry,
        *,
        progress: PlainProgress,
        position: int,
    ) -> None:
        self.position = position
        self.plan, self.method, self.trial, self.registry, self.progress = plan, method, trial, registry, progress
        self.scores = dict(trial.scores)
        self.rows: list[dict[str, Any]] = []
        self.began: float | None = None
        self.seconds: float | None = None  # of a training that is repeated
        self.suite: Suite = plan.suite

    def run(self, run_trial: RunTrial, known: Mapping[str, Record], worker: Worker, tick: Callable[[], None]) -> Record:
        """Runs the trial, or repeats what is recorded; returns its record, which is on disk. known: {training digest: a
        record of how that training went, or went until it was pruned}; tick: raises where it is to be stopped."""
        folder = trials_folder(self.plan)
        try:
            planned = self._planned()
        except (SuiteError, DataError, PluginError) as error:  # values that do not go together
            blank = self._named(self.method.planned.blank)
            failure = {"type": type(error).__name__, "message": str(error), "traceback": ""}
            self.progress.leave_out(self.position, f"{self._heading}: error: {first_line(error)}")
            return self._end(replace(blank, error=failure, started=now(), finished=now()), "failed")
        waiting = f"{self._heading}: waiting for another run"

        def wait(where: str) -> None:
            tick()
            self.progress.wait(f"{waiting} ({where})")

        with alone(folder, planned.blank.digest, wait):
            return self._run_claimed(planned, partial(run_trial, worker=worker, tick=tick), known)

    def _run_claimed(
        self, planned: PlannedCell, run_trial: Callable[..., Record], known: Mapping[str, Record]
    ) -> Record:
        folder = trials_folder(self.plan)
        former = known.get(planned.blank.training_digest) or self._recorded(folder, planned.blank.digest)
        try:
            if former is not None:
                self._see_again(former, planned.cell.method.stages[-1].training["epochs"])
                if _is_trained(former):
                    return self._repeat(planned.blank, former)
                self.rows, self.seconds = [], None
            total = self.method.search.tuning.budget.trials or self.trial.number + 1
            trials = replace(self.plan, folder=folder, cells=(planned,), strays=())
            record = run_trial(
                trials, planned, watch=self._watch, place=(self.trial.number + 1, total), position=self.position
            )
        except Pruned:
            return self._pruned(planned.blank)
        if record.status == "ok" and self.method.metric not in record.validation:
            message = "training ended before its first validation, so the trial has no score"
            record = replace(record, status="error", error={"type": "RunError", "message": message, "traceback": ""})
        return self._end(record, "complete" if record.status == "ok" else "failed")

    def _recorded(self, folder: Path, digest: str) -> Record | None:
        """This trial's own record, where another run was killed before the search heard of it. Only for who has claimed
        the trial."""
        try:
            finish_write(folder, digest)
            record = read_record(record_path(folder, digest))
        except (OSError, RunError):  # there is none, or none that can be used
            return None
        return record if _is_trained(record) or _is_pruned(record) else None

    def _planned(self) -> PlannedCell:
        """The trial's cell, with a blank record of its own."""
        cell = self.suite.tuned_cell(self.registry, self.method.planned.cell, self.trial.values)
        identity = cell_identity(cell, self.registry, self.plan.dataset_digest)
        blank = replace(
            self.method.planned.blank,
            training_digest=training_digest(identity),
            lists_digest=lists_digest(identity),
            identity=identity,
        )
        return PlannedCell(cell, self._named(blank), None, None, None)

    def _named(self, blank: Record) -> Record:
        """The blank record, of this trial."""
        study = short_hash(self.method.search.name)
        identity = {**blank.identity, "trial": {"study": study, "number": self.trial.number}}
        trial = {
            **identity["trial"],
            "values": self.trial.values,
            "state": "running",
            "metric": self.method.metric,
            "value": None,
            "seconds": None,
        }
        return replace(
            blank, digest=cell_digest(identity), identity=identity, trial=trial, tuning=None, also=[], scores={}
        )

    def _watch(self, event: ChildMessage) -> None:
        """Hears the child; raises Pruned where the trial is to be stopped."""
        if event.get("event") == "place":  # a trial whose node was lost begins anew
            self.rows = []
        if event.get("event") == "phase" and event.get("name") == "train":
            self.began = time.monotonic()
        whole_name = f"train {self.method.stage}" if self.method.stage else None
        if event.get("event") != "validate" or event.get("what") != whole_name or self.method.metric not in event:
            return
        row = {name: event[name] for name in ("epoch", *self.method.planned.blank.metrics) if name in event}
        self._see(row, last=event["epoch"] >= event["epochs"])

    def _see(self, row: Mapping[str, Any], *, last: bool) -> None:
        """Takes in the validation scores of an epoch. Nothing is saved by pruning after the last one."""
        epoch = int(row["epoch"])
        self.rows.append({**row, "stage": self.method.stage} if self.method.stage else dict(row))
        self.scores[epoch] = float(row[self.method.metric])
        if self.method.search.report(self.trial, epoch, self.scores) and not last:
            raise Pruned

    def _see_again(self, former: Record, epochs: int) -> None:
        """Goes through the validations of a training that is recorded, as if it were done again; raises Pruned where
        that would have been stopped. epochs: of the last stage, as planned."""
        self.seconds = _training_seconds(former)
        own = [row for row in former.curve if row.get("stage", "") == self.method.stage]
        for row in own:
            if self.method.metric in row:
                self._see(row, last=row["epoch"] >= len(former.curve) - len(own) + epochs)

    def _repeat(self, blank: Record, former: Record) -> Record:
        """Records a training that is recorded already, as this trial."""
        own = blank.digest == former.digest  # of a run that was killed before it could say so
        if not own:
            names = {key: getattr(blank, key) for key in NAMES}
            trial = {**(blank.trial or {}), "same_as": former.digest}
            cost = {key: cost for key, cost in former.cost.items() if key in ("train_seconds", "phases")}
            former = replace(
                former,
                **names,
                digest=blank.digest,
                lists_digest=blank.lists_digest,
                identity=blank.identity,
                trial=trial,
                tuning=None,
                scores={},
                lists={},
                pool=None,
                rescored_from=None,
                cost=cost,
                files={},
                external=None,
                weights={},
                weights_from=None,
            )
        said = f"{self._heading}: {self.method.score_text(former.validation[self.method.metric])}, known"
        self.progress.leave_out(self.position, said)
        return self._end(former, "complete")

    def _pruned(self, blank: Record) -> Record:
        """Records a trial that was stopped: the validations so far, of which the best is its state's."""
        metric, sign = self.method.metric, 1 if self.method.search.higher_is_better else -1
        best = max(self.rows, key=lambda row: sign * row[metric])
        epoch = self.rows[-1]["epoch"]
        record = replace(
            blank, status="ok", curve=self.rows, counts={"best_epoch": best["epoch"]}, started=now(), finished=now()
        )
        said = f"{self._heading}: pruned after epoch {epoch}, {self.method.score_text(best[metric])}"
        if self.began is None:
            self.progress.leave_out(self.position, said)
        else:
            self.progress.end(said, self._spent, self.position)
        return self._end(record, "pruned")

    def _end(self, record: Record, state: State) -> Record:
        """Writes how the trial ended, first into its record, then into the search."""
        value = record.validation.get(self.method.metric) if state != "failed" else None
        trial = {**(record.trial or {}), "state": state, "value": value, "seconds": self._spent}
        ended = replace(record, trial=trial)
        write_record(trials_folder(self.plan), ended)
        self.method.search.finish(self.trial, state, value, self._spent, record.status)
        return ended

    @property
    def _spent(self) -> float:
        """Seconds of training and its validations."""
        if self.seconds is None:
            self.seconds = 0.0 if self.began is None else time.monotonic() - self.began
        return self.seconds

    @property
    def _heading(self) -> str:
        return f"{self.method.name}, trial {self.trial.number + 1} ({values_text(self.trial.values)})"


def _training_seconds(record: Record) -> float:
    """Seconds that a recorded training and its validations took."""
    known = (record.trial or {}).get("seconds")
    if known is not None:
        return float(known)
    phases = record.cost.get("phases", {})
    return float(sum(phases.get(name, {}).get("seconds") or 0.0 for name in ("train", "validate")))
