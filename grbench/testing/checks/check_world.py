"""The data that plug-ins are checked on: a made-up store in memory, its split, and batches of it.

Shapes: B users, T history length.
"""

from __future__ import annotations

import dataclasses
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch

from grbench.audit.world import made_up_store
from grbench.data.batches import query_batches, training_batches
from grbench.data.examples import Examples
from grbench.data.split import Split
from grbench.data.store import Store
from grbench.data.training_data import TrainingData
from grbench.testing.checks.plain_parts import PlainProtocol
from grbench.types import Batch

USERS, ITEMS = 150, 90
LENGTH = 12
"""Events of a history in the batches of a check, where the encoder encodes so many."""
ROWS = 8


class CheckWorld:
    """Three actions, times, fields of items and users, an embedding `content`, a text `title`, candidates, and users
    with 2 to 24 events."""

    @cached_property
    def store(self) -> Store:
        """In memory; nothing is written."""
        return made_up_store(Path("made up"), users=USERS, items=ITEMS)

    @cached_property
    def split(self) -> Split:
        """Each user's last event is the target."""
        return PlainProtocol().split(self.store)

    def training_data(self, *, first_events: bool = False) -> TrainingData:
        """first_events: users' first events are targets too."""
        return self.split.training.with_first_events() if first_events else self.split.training

    def batch(self, history_length: int, *, first_events: bool = False, rows: int = ROWS) -> Batch:
        """A training batch of histories of different lengths, at least one of them whole and one with padding where T
        allows it."""
        data = self.training_data(first_events=first_events)
        users = data.trainable
        order = np.argsort(data.lengths[users], kind="stable")
        chosen = users[order[np.linspace(0, len(order) - 1, rows).astype(np.int64)]]
        chosen = np.random.default_rng(0).permutation(chosen)
        examples = Examples(chosen, data.lengths[chosen])
        length = min(history_length, LENGTH)
        return next(training_batches(data, examples, history_length=length, batch_size=rows, workers=0))

    def queries(self, history_length: int, *, rows: int = ROWS) -> Batch:
        """A batch of test queries."""
        length = min(history_length, LENGTH)
        _, batch = next(query_batches(self.split.test, history_length=length, batch_size=rows, workers=0))
        return batch


@cache
def check_world() -> CheckWorld:
    """The same for all checks of a process."""
    return CheckWorld()


def rows_of(batch: Batch, rows: torch.Tensor | slice) -> Batch:
    """Some rows of a batch, in that order."""
    return dataclasses.replace(
        batch, **{field.name: getattr(batch, field.name)[rows] for field in dataclasses.fields(batch)}
    )


def newest_columns(batch: Batch, length: int) -> Batch:
    """The batch with its last `length` columns."""
    names = ("items", "actions", "times", "targets", "next_actions")
    return dataclasses.replace(batch, **{name: getattr(batch, name)[:, -length:] for name in names})


def padded(batch: Batch, columns: int) -> Batch:
    """The batch with so many more columns of padding before the first."""
    names = ("items", "actions", "times", "targets", "next_actions")
    return dataclasses.replace(
        batch, **{name: torch.nn.functional.pad(getattr(batch, name), (columns, 0)) for name in names}
    )
