"""A method of a suite on a small world, and the runs of it that audits compare. A run is made when it is first needed.

A run is what a cell is: split, tokenizer, encoder, losses, training of a few steps, lists of all test queries, metrics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from grbench.audit.changed_futures import ChangedStore, with_changed_futures, with_drawn_targets
from grbench.audit.cut_sizes import audited_size
from grbench.audit.opened_files import OpenedFiles
from grbench.audit.recorded_parts import Recording, RecordingRegistry, modules_of
from grbench.audit.trace import Crossing, Trace
from grbench.audit.world import World
from grbench.cost.meter import Meter
from grbench.cost.monitor import no_report
from grbench.data.split import Queries, Split
from grbench.data.store import Store
from grbench.evaluation.ranking import Ranker
from grbench.evaluation.scoring import score
from grbench.interfaces import EvaluationProtocol
from grbench.registry.discovery import Registry
from grbench.suite.suite import Cell
from grbench.training.numerics import seed_everything
from grbench.training.stages import Assembled, train_method
from grbench.types import Ranking


@dataclass(frozen=True)
class AuditRun:
    """One run. read: the files that were read, each with the part that read it."""

    split: Split
    method: Assembled
    ranking: Ranking
    trace: Trace
    read: dict[Path, str]


class AuditedMethod:
    """What an audit is given.

    cell: at the sizes that are audited; cuts: what was cut. notes: sentences on what was replaced, as far as runs were
    made. Runs raise whatever a plug-in raises, and UnstableSplitError.
    """

    def __init__(self, cell: Cell, registry: Registry, world: World, *, cache: Path, full_size: bool = False) -> None:
        method, cuts = audited_size(cell.method, registry, full_size=full_size)
        self.cell, self.cuts = replace(cell, method=method), cuts
        self.registry, self.world, self.cache = registry, world, cache
        self.notes: dict[str, None] = {}

    @cached_property
    def protocol(self) -> EvaluationProtocol:
        """The suite's."""
        made: EvaluationProtocol = self.registry.build("protocols", self.cell.protocol)
        return made

    @cached_property
    def split(self) -> Split:
        """Of the world as it is."""
        return self.protocol.split(self.world.store)

    @cached_property
    def plain(self) -> AuditRun:
        """The run on the world as it is."""
        return self._run(self.world.store, self.split)

    @cached_property
    def redrawn(self) -> ChangedStore:
        """The world with other targets."""
        return with_drawn_targets(self.world.store, self.split, self.protocol)

    @cached_property
    def on_redrawn(self) -> AuditRun:
        """The run on the world with other targets."""
        return self._run(self.redrawn.store, self.redrawn.split)

    @cached_property
    def changed(self) -> ChangedStore:
        """The world with other futures of the evaluated users."""
        return with_changed_futures(self.world.store, self.split, self.protocol)

    @cached_property
    def on_changed(self) -> AuditRun:
        """The run on the world with other futures."""
        return self._run(self.changed.store, self.changed.split)

    @cached_property
    def not_repeatable(self) -> Crossing | None:
        """What first differs when the plain run is made again; None where nothing does."""
        again = self._run(self.world.store, self.protocol.split(self.world.store))
        index = self.plain.trace.first_difference(again.trace)
        return None if index is None else crossing_at(index, self.plain.trace, again.trace)

    def rank(self, run: AuditRun, queries: Queries, retriever: Any = None) -> Ranking:
        """Lists of the method's filters, by the run's encoder and retriever, or by another retriever."""
        return self._ranker(run.split, run.method, retriever or run.method.retriever).rank(queries)

    def untrained_encoder(self) -> nn.Module:
        """An encoder as it is made for the plain run."""
        seed_everything(self.cell.seed)
        made: nn.Module = self.registry.build(
            "encoders", self.cell.method.encoder, self.split.training, self.plain.method.codes
        )
        return made

    def _run(self, store: Store, split: Split) -> AuditRun:
        cell, trace = self.cell, Trace()
        trace.add("the protocol", "the training events", split.training)
        trace.add("the protocol", "the candidates", np.asarray(split.candidates))
        files = OpenedFiles(modules_of(self.registry, {*cell.method.plugins(), *_metrics(cell)}))
        recording = Recording(trace, files)
        registry = RecordingRegistry(self.registry, recording, stand_in=not self.world.own)
        seed_everything(cell.seed)
        with files:
            method, _ = train_method(cell, registry, split, device="cpu", report=no_report, meter=Meter("cpu"))
            trace.add("the training", "the parameters and buffers of the encoder", method.encoder)
            ranking = self._ranker(split, method, method.retriever).rank(split.test)
            with recording.by("a metric"):
                score(method.metrics, ranking)
        trace.close()
        self.notes |= recording.notes
        return AuditRun(split, method, ranking, trace, files.read([store.path, self.cache]))

    def _ranker(self, split: Split, method: Assembled, retriever: Any) -> Ranker:
        cell = self.cell
        return Ranker(
            retriever,
            method.encoder,
            split,
            method.codes,
            k=cell.list_length,
            filters=cell.method.filters,
            device="cpu",
        )


def crossing_at(index: int, *traces: Trace) -> Crossing:
    """The crossing at an index, of the first of the traces that is so long."""
    return next(trace.crossings[index] for trace in traces if index < len(trace.crossings))


def _metrics(cell: Cell) -> set[tuple[str, str]]:
    return {("metrics", metric.name) for metric in cell.metrics}
