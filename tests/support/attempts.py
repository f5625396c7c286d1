"""A small cell that is run, stopped and run again in this process, with what earlier attempts have left."""

from __future__ import annotations

import io
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import torch
from heard import Heard
from learnt_codes import RoundRobin
from resumable import METHODS, OwnPlugins
from torch import nn

from grbench import hookimpl
from grbench.data.store import Store
from grbench.interfaces import Tokenizer
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.results.record_files import checkpoint_folder
from grbench.run.backends.child_process import ChildMessages
from grbench.run.checkpoints import Checkpoints
from grbench.run.reporter import Reporter
from grbench.run.run_cell import run_cell
from grbench.suite.method import Method
from grbench.suite.suite import Cell
from grbench.testing import tiny_store
from grbench.types import Codes

BLANK = Record(digest="d" * 16, suite="tiny", method="m", seed=0, status="error", training_digest="t" * 16)
ITEMS, SIZES = 12, (3, 4)
EVERY_STEP = 1e-9
"""Minutes between checkpoints: each step but an epoch's last leaves one."""


class Drawn(Tokenizer):
    """Gives items codes that it draws, as k-means draws its centroids."""

    fitted: ClassVar[int] = 0

    def fit(self, data: Any) -> Codes:
        type(self).fitted += 1
        places = torch.cat([torch.zeros(1, dtype=torch.int64), torch.randperm(data.catalogue.num_items)])
        table = torch.stack([places // SIZES[1], places % SIZES[1]], 1)
        table[0] = 0
        return Codes(table, SIZES, {"drawn": True})


class Collector(nn.Module):
    """A loss whose state holds what no checkpoint can."""

    needs: ClassVar[tuple[type, ...]] = ()

    def __init__(self, data: Any, codes: Any) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, encoder: Any, batch: Any) -> dict[str, torch.Tensor]:
        return {"nothing": self.scale.square()}

    def get_extra_state(self) -> set[int]:
        return {1}

    def set_extra_state(self, state: Any) -> None:
        raise AssertionError("nothing was saved")


class MorePlugins(OwnPlugins):
    @hookimpl
    def register_tokenizers(self, register: Any) -> None:
        register("drawn", Drawn)
        register("round_robin", RoundRobin)

    @hookimpl
    def register_losses(self, register: Any) -> None:
        super().register_losses(register)
        register("collector", Collector)


class Stopped(BaseException):
    """The end of a process that is killed, as far as one process can tell."""


class Stopping(Heard):
    """A tracker that hears each step, and stops the cell at one of them, or after the last (`at="search"`).
    interrupt: the step at which this process gets Ctrl-C."""

    def __init__(self, at: int | str | None, interrupt: int | None = None) -> None:
        super().__init__(every_steps=1)
        self.at, self.interrupt = at, interrupt

    def log(self, step: int, values: dict[str, float]) -> None:
        super().log(step, values)
        if step == self.at:
            raise Stopped
        if step == self.interrupt:
            self.interrupt = None  # a second one ends the process at once
            os.kill(os.getpid(), signal.SIGINT)

    def keep(self, encoder: Any, num_items: int) -> None:
        if self.at == "search":
            raise Stopped


def registry_of_attempts() -> Registry:
    """The installed plug-ins and those above."""
    registry = Registry.load()
    registry.add("own", "own", "1", MorePlugins)
    return registry


def store_of_attempts(folder: Path) -> Store:
    """Fourteen users, four batches an epoch."""
    walks = [[(1 + (3 * user + step) % ITEMS, step % 2, 100 + step) for step in range(7)] for user in range(14)]
    return tiny_store(folder, walks, num_items=ITEMS)


def cell_of(name: str) -> Cell:
    """A cell of one of the methods whose trainings are resumed elsewhere, in a shorter form."""
    (encoder, options), stages = METHODS[name]
    stages = [replace(each, training=each.training | {"epochs": 2}) for each in stages]
    retriever = Component("exact") if encoder == "causal_transformer" else Component("beam", {"width": 3})
    tokenizer = {"causal_transformer": "ids", "learnt_codes": "round_robin"}.get(encoder, "drawn")
    method = Method(name, Component(tokenizer), Component(encoder, options), retriever, tuple(stages), (), ())
    metrics = (Component("ndcg", {"k": 3}), Component("hit_rate", {"k": 2}))
    return Cell("tiny", Component("tiny"), Component("leave_last_out"), metrics, method, 7)


class Attempts:
    """Attempts at one cell, each of which finds what the one before has left. notes: of the last one."""

    def __init__(self, cell: Cell, folder: Path, store: Store, registry: Registry) -> None:
        self.cell, self.folder, self.store, self.registry = cell, folder, store, registry
        self.place = checkpoint_folder(folder, BLANK.digest)
        self.notes: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def checkpoints(self, *, minutes: float = EVERY_STEP, anew: bool = False, digest: str = "t" * 16) -> Checkpoints:
        self.notes.clear()

        def tell(first: int, rows: list[dict[str, Any]]) -> None:
            self.rows[first:] = rows

        options: Any = {"minutes": minutes, "device": "cpu", "anew": anew}
        return Checkpoints(self.place, digest, **options, say=self.notes.append, tell=tell)

    def run(
        self,
        stop: int | str | None = None,
        *,
        interrupt: int | None = None,
        keep: Path | None = None,
        **options: Any,
    ) -> tuple[Record, pa.Table] | None:
        """The record and the lists; None where the attempt was stopped."""
        report = Reporter(ChildMessages(io.StringIO()), [Stopping(stop, interrupt)])
        common: Any = {"registry": self.registry, "device": "cpu", "report": report}
        try:
            return run_cell(self.cell, BLANK, self.store, checkpoints=self.checkpoints(**options), keep=keep, **common)
        except Stopped:
            return None


MEASURED = ("users_per_second", "events_per_second")


def results(ended: tuple[Record, pa.Table] | None) -> tuple[Any, ...]:
    """All that is no cost."""
    assert ended is not None
    record, lists = ended
    curve = [{key: value for key, value in row.items() if key not in MEASURED} for row in record.curve]
    return record.scores, lists.to_pydict(), curve, record.counts, record.tokenizer, record.lists
