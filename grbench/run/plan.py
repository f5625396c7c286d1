"""What is to be done: every cell of a suite with its digest, what is known of it already, and what it should cost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from grbench.interfaces import EvaluationProtocol, optional
from grbench.output import printable
from grbench.registry.discovery import BrokenPluginError, Registry
from grbench.registry.source_hash import clear_caches
from grbench.report.format import GIB, counted, duration, significant
from grbench.results.facts import dataset_facts, metric_facts, protocol_facts
from grbench.results.identity import cell_digest, cell_identity, lists_digest, longest_cutoff, training_digest
from grbench.results.integrity import altered_lists, with_altered
from grbench.results.record import Record
from grbench.results.record_files import (
    checkpoint_folder,
    ranking_path,
    read_records,
    record_path,
    weights_path,
)
from grbench.run.data_source import build_dataset
from grbench.run.places import at_all_places
from grbench.run.prepare import placed
from grbench.suite.suite import Cell, Suite
from grbench.tuning.search import values_text


@dataclass(frozen=True)
class PlannedCell:
    """A cell, the record that it will fill in, and the record that there is (None where it never ran).

    altered: there is a record, but it was altered after it was written.
    source: a finished record whose lists hold all that the cell's metrics need, so that it is scored and not run.
    weights: a record that kept the model that this cell would train, so that it is ranked and not trained.
    resumes: whether an attempt at this cell left checkpoints, from which it goes on.
    older: there is a record of this method and seed whose identity is of an older kind, which cannot be compared.
    awaits_tuning: the method's options are tuned first; the cell has those of the suite file until then.
    """

    cell: Cell
    blank: Record
    former: Record | None
    seconds: float | None
    memory: float | None
    again: bool = False
    altered: bool = False
    source: Record | None = None
    weights: Record | None = None
    resumes: bool = False
    older: bool = False
    awaits_tuning: bool = False

    @property
    def shown(self) -> Record:
        """The record that the plan names: the finished one, which may have further metrics and so another digest, or
        the one that is to be filled in."""
        return self.former if self.finished and self.former else self.blank

    @property
    def name(self) -> str:
        """How it is called in lines of progress."""
        if trial := self.blank.trial:
            return f"{self.cell.method.name}, trial {trial['number'] + 1} ({values_text(trial['values'])})"
        return f"{self.cell.method.name}, seed {self.cell.seed}"

    @property
    def finished(self) -> bool:
        """Whether there is nothing to do."""
        return self.former is not None and self.former.done and not self.again and not self.awaits_tuning

    @property
    def state(self) -> str:
        """done, re-score, re-rank, to do (again, with what became of it the last time, and from where), cannot run."""
        if self.finished:
            return "done"
        if self.cell.error:
            return "cannot run"
        if self.awaits_tuning:
            return "to do once it is tuned"
        to_do = "re-score" if self.source else "re-rank" if self.weights else "to do"
        if self.altered:
            why = "its record was altered"
        elif self.former is None:
            return f"{to_do} (there is one of an older identity)" if self.older else f"{to_do}{self.going_on}"
        elif self.former.status != "ok":
            why = f"was {self.former.status}"
        elif self.former.done:
            why = "forced"
        else:
            why = f"its lists {'are gone' if self.former.lists_gone else 'were altered'}"
        return f"{to_do} again ({why}){self.going_on}"

    @property
    def going_on(self) -> str:
        """Said after the state, where there is a checkpoint."""
        return ", goes on from a checkpoint" if self.resumes else ""


@dataclass(frozen=True)
class Plan:
    """All cells of a run in their order. `folder` keeps the suite's records; `dataset_digest` names the source.

    strays: what is said of files in the folder that are no records, or were altered.
    """

    suite: Suite
    folder: Path
    cells: tuple[PlannedCell, ...]
    dataset_digest: str = ""
    strays: tuple[str, ...] = ()

    def only(self, digests: frozenset[str] | None) -> Plan:
        """The plan with these cells alone, none of which has to be tuned first; None = all."""
        if digests is None:
            return self
        kept = tuple(each for each in self.cells if each.blank.digest in digests and not each.awaits_tuning)
        return replace(self, cells=kept)

    @property
    def to_do(self) -> list[PlannedCell]:
        """The cells that have to run, or to be scored."""
        return [planned for planned in self.cells if not planned.finished]

    @property
    def to_run(self) -> list[PlannedCell]:
        """The cells that have to run."""
        return [planned for planned in self.to_do if planned.source is None]

    def text(self) -> str:
        """The plan as it is printed: a line of totals, then one a cell."""
        from tabulate import tabulate

        done, rescored = len(self.cells) - len(self.to_do), len(self.to_do) - len(self.to_run)
        ranked = sum(planned.weights is not None for planned in self.to_run)
        methods = len({planned.cell.method.name for planned in self.cells})
        seeds = len({planned.cell.seed for planned in self.cells})
        known = [planned.seconds for planned in self.to_run if planned.seconds is not None]
        expected = ""
        if known:
            rest = "" if len(known) == len(self.to_run) else f" for {len(known)} of them, the others are not known"
            expected = f", about {duration(sum(known))}{rest} (as they took before)"
        rows = [
            [
                planned.cell.method.name,
                planned.cell.seed,
                planned.state,
                "" if planned.seconds is None else duration(planned.seconds),
                "" if planned.memory is None else f"{significant(planned.memory / GIB)} GiB",
                "" if planned.awaits_tuning else planned.shown.digest,
            ]
            for planned in self.cells
        ]
        headers = ("method", "seed", "state", "time", "memory", "digest")
        shown = [column for column in zip(headers, *rows, strict=True) if any(cell != "" for cell in column[1:])]
        table = tabulate(list(zip(*shown, strict=True)), headers="firstrow", tablefmt="simple", disable_numparse=True)
        totals = f"{counted(methods, 'method')} x {counted(seeds, 'seed')} = {counted(len(self.cells), 'cell')}"
        notes = "".join(f"note: {note}\n" for note in dict.fromkeys(self._notes()))
        to_do = f"{rescored} to re-score, " * (rescored > 0) + f"{ranked} to re-rank, " * (ranked > 0)
        to_do += f"{len(self.to_run) - ranked} to do{expected}"
        return printable(f"{self.suite.name}: {totals}: {done} done, {to_do}\n\n{table}\n{notes}", "\n")

    def _notes(self) -> Iterator[str]:
        """What was left out of the folder, and warnings about settings that are probably mistakes."""
        yield from self.strays
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        for planned in self.to_run:
            method = planned.cell.method
            for place, stage in enumerate(method.stages):
                workers = stage.training.get("workers", 0)
                if workers > cores:
                    yield (
                        f"methods.{method.name}.{method.training_key(place)}.workers: {workers} threads on {cores} "
                        "cores only wait for each other; 1 or 2 keep up with any training step"
                    )


def make_plan(
    suite: Suite,
    cells: Sequence[Cell],
    registry: Registry,
    results: Path,
    *,
    force: bool = False,
    tuning: Mapping[str, dict[str, Any] | None] = MappingProxyType({}),
    cache: Path | None = None,
) -> Plan:
    """Works out every cell's digest and looks for its record below `results`.

    tuning: of each method whose options are tuned, the search by which the values in its cells were chosen; None where
    they are not chosen yet. cache: for copies of data that lie elsewhere.
    Raises DataError where the dataset is missing or incomplete, RunError where the results are of a newer schema, and
    what a tokenizer raises of its options and files.
    """
    folder = results / suite.name
    strays, altered, former = list[str](), dict[Path, str](), list[Record]()
    if folder.is_dir():
        records = read_records([folder], strays.append, altered=lambda path, error: altered.update({path: str(error)}))
        former = [with_altered(record) for record in records]
    by_digest = {record.digest: record for record in former if record_path(folder, record.digest).is_file()}
    clear_caches()
    dataset_digest = _checked_source(cells[0], registry, cache)
    order = {name: position for position, name in enumerate(suite.methods)}
    metrics: dict[str, dict[str, Any]] | None = None
    planned = []
    for cell in cells:
        with placed(suite.path):
            identity = cell_identity(cell, registry, dataset_digest)
        metrics = _metric_facts(cell, registry, identity) if metrics is None else metrics
        blank = Record(
            digest=cell_digest(identity),
            suite=suite.name,
            method=cell.method.name,
            seed=cell.seed,
            status="error",
            training_digest=training_digest(identity),
            lists_digest=lists_digest(identity),
            order=order[cell.method.name],
            identity=identity,
            dataset=dataset_facts(cell.dataset, dataset_digest),
            protocol=protocol_facts(cell.protocol),
            metrics=metrics,
            tuning=tuning.get(cell.method.name),
            grid=suite.grid_facts(cell.method.name),
            title=suite.title,
            baseline=suite.baseline,
            published=[figure for figure in suite.published.get(cell.method.name, ()) if figure["metric"] in metrics],
        )
        awaits = tuning.get(cell.method.name, {}) is None
        source = None if force or cell.error or awaits else _source(cell, blank, former, folder)
        there = by_digest.get(blank.digest)
        if source is not None and not (there and there.done) and covers(source, blank):
            there, source = source, None
        done = there is not None and there.done
        weights = None if force or cell.error or source or done or awaits else _weights(blank, former, folder)
        # A method of this name, of these options or others: the best guess of what this one will take.
        alike = [record for record in former if record.method == blank.method and record.status == "ok"]
        like = max(alike, key=lambda record: record.finished, default=None)
        cost = like.cost if like else {}
        planned.append(
            PlannedCell(
                cell=cell,
                blank=blank,
                former=None if awaits else there,
                seconds=None if source or weights else cost.get("total_seconds"),
                memory=None if source else cost.get("peak_gpu_bytes") or cost.get("peak_process_bytes"),
                again=force,
                altered=record_path(folder, blank.digest) in altered,
                source=source,
                weights=weights,
                resumes=not (force or cell.error or source or weights or awaits)
                and checkpoint_folder(folder, blank.digest).is_dir(),
                awaits_tuning=awaits,
                older=any(
                    record.older_identity and (record.method, record.seed) == (blank.method, blank.seed)
                    for record in former
                ),
            )
        )
    said = [*strays, *altered.values(), *filter(None, map(altered_lists, former))]
    return Plan(suite, folder, tuple(at_all_places(planned, suite)), dataset_digest, tuple(said))


def _source(cell: Cell, blank: Record, former: Sequence[Record], folder: Path) -> Record | None:
    """A finished record whose lists are long enough for the cell's metrics.

    Some retrievers find other items when they are asked for longer lists. So a record that was scored from lists of the
    cell's own length comes first, then the shortest scored lists that are long enough, then the shortest kept ones; of
    several alike, a record that has all the metrics, then the newest.
    """
    able = [
        record
        for record in former
        if record.done
        and record.lists_digest == blank.lists_digest
        and record.list_length >= cell.list_length
        and ranking_path(folder, record.digest).is_file()  # the record may lie in a folder of its own, below
    ]

    def distance(record: Record) -> tuple[bool, int, bool]:
        scored = record.lists.get("scored") or 0
        length = (False, scored) if scored >= cell.list_length else (True, record.list_length)
        return *length, not covers(record, blank)

    newest_first = sorted(able, key=lambda record: record.finished, reverse=True)
    return min(newest_first, key=distance, default=None)


def covers(record: Record, blank: Record) -> bool:
    """Whether a finished record of the same lists has all the metrics of `blank`, in whatever order, as a record that
    was scored again with further ones does.

    A metric without a cutoff looks at lists of the metrics' largest one, so that this has to be the same too.
    """
    there, needed = record.identity.get("metrics", []), blank.identity["metrics"]
    if not all(metric in there for metric in needed):
        return False
    has_cutoff = all(metric["options"].get("k") for metric in needed)
    return has_cutoff or longest_cutoff(there) == longest_cutoff(needed)


def _weights(blank: Record, former: Sequence[Record], folder: Path) -> Record | None:
    """The newest record that kept the model that this cell would train."""
    able = [
        record
        for record in former
        if record.weights
        and record.training_digest == blank.training_digest
        and (path := weights_path(folder, record)) is not None
        and path.is_file()
    ]
    return max(able, key=lambda record: record.finished, default=None)


def _checked_source(cell: Cell, registry: Registry, cache: Path | None) -> str:
    """The digest of the source's content, which has what the protocol needs; empty where the dataset's plug-in is
    broken, so that no cell can run anyway."""
    try:
        dataset = build_dataset(registry, cell.dataset, cache=cache)
    except BrokenPluginError:
        return ""
    digest = str(dataset.digest())
    with contextlib.suppress(BrokenPluginError):
        optional(registry.build("protocols", cell.protocol), EvaluationProtocol.check)(dataset)
    return digest


def _metric_facts(cell: Cell, registry: Registry, identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a record says of the cell's metrics; empty where a metric's plug-in is broken."""
    try:
        return metric_facts(registry, cell.metrics, identity["metrics"])
    except BrokenPluginError:
        return {}
