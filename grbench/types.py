"""The values that plug-ins exchange. All are frozen: a function returns new ones and does not modify its arguments.

Shapes: B users, T history length, N items, Q queries, G targets per query, K list length, k requested list length,
L code levels. Item 0 is padding; items 1..N are real; users are rows 0..U-1 of the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

Report = Callable[..., None]
"""Called with the name of an event of a running cell and, as keyword arguments, its values."""

Progress = Callable[[str, int, int | None], None]
"""Called with the name of a task, the amount done, and the total amount (None = unknown)."""

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, device

    from grbench.data.histories import Histories
    from grbench.data.training_data import TrainingData

MAX_SEED = 2**63 - 1
"""The largest seed of random numbers."""

DEFAULT_LIST_LENGTH = 10
"""The length of the ranked lists where no metric has a `k`."""

Filter = Literal["history", "not_indexed", "no_training_event"]
"""history: items of a query's history are removed from its list. not_indexed: candidates that the source's catalogue
lacks, which occur in the candidate table only, are left out; where there is no such table, none are. no_training_event:
candidates without a training event are left out."""

FILTERS: tuple[str, ...] = get_args(Filter)

# Codes of item and user features: padding, a missing value, a value not seen in training, then the values themselves.
PADDING, MISSING, UNKNOWN, FIRST_VALUE = 0, 1, 2, 3

# Action tokens: 0 is padding, 1 an event whose action is null, a + 2 the dataset's action number a.
ACTION_MISSING, FIRST_ACTION = 1, 2


@dataclass(frozen=True)
class Batch:
    """Histories, left-padded with 0, and in training the next item at each position.

    There is one more position than events: that of the user's token, before the first event, from which an encoder may
    predict the first event (`Encoder.predicts_first_event`).

    users:   [B] int64, rows of the store
    items:   [B, T] int64
    actions: [B, T] int64, action tokens
    times:   [B, T] int64, unix seconds (0 where the dataset has no times)
    targets: [B, T] int64, the next item at each position; 0 = this position has no loss; all 0 in a test batch
    next_actions: [B, T] int64, action token of the next event at each position; at the last position of a test batch,
             the action that the protocol chooses
    user_targets: [B] int64, the first item of the user's history, which the user token predicts; 0 = it has no loss:
             where the history begins before the window, in a test batch, and where the encoder does not predict it
    user_next_actions: [B] int64, action token of the first event; in a test batch of a user without events, the action
             that the protocol chooses
    user_times: [B] int64, unix seconds of the first event; 0 where there is none, as in a test batch of a user without
             events

    `user_next_actions` and `user_times` are 0 as well where the history begins before the window, and in training
    where the encoder does not predict the first event.
    """

    users: Tensor
    items: Tensor
    actions: Tensor
    times: Tensor
    targets: Tensor
    next_actions: Tensor
    user_targets: Tensor
    user_next_actions: Tensor
    user_times: Tensor

    @property
    def all_targets(self) -> Tensor:
        """[B, T + 1], the target of the user's token, then those of the events."""
        return _user_first(self.user_targets, self.targets)

    @property
    def all_next_actions(self) -> Tensor:
        """[B, T + 1], the next action of the user's token, then those of the events."""
        return _user_first(self.user_next_actions, self.next_actions)

    def rows_of(self, states: Tensor, positions: Tensor) -> Tensor:
        """positions [P], indices into the flattened [B, T + 1] of `all_targets` -> [P], those of their states in the
        flattened states, which are [B, T + 1, D], or [B, T, D] from an encoder that does not predict the first event,
        whose batches have no target there."""
        length = self.items.shape[1]
        return positions if states.shape[1] > length else positions - positions // (length + 1) - 1

    def to(self, device: device | str, *, non_blocking: bool = False) -> Self:
        """A copy of the batch on another device."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=non_blocking)
            for field in dataclasses.fields(self)
        }
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Self:
        """A copy of the batch in page-locked memory, from which copies to the GPU are asynchronous."""
        return dataclasses.replace(
            self, **{field.name: getattr(self, field.name).pin_memory() for field in dataclasses.fields(self)}
        )


def _user_first(of_user: Tensor, of_events: Tensor) -> Tensor:
    """[B], [B, T] -> [B, T + 1]"""
    import torch  # not above: this module is imported by commands that do without torch

    return torch.cat([of_user.unsqueeze(1), of_events], 1)


@dataclass(frozen=True)
class Codes:
    """Semantic IDs of all items. The tokenizer `ids` gives one level, whose code is the item itself.

    table:  [N+1, L] int64; row 0 = padding, all 0
    sizes:  number of codes of each level
    report: statistics for the record (utilisation, time), JSON-ready. `colliding_items`, the number of items that share
            their semantic ID with another item, is copied to the record's counts
    tensors: what else of the tokenizer encoders use, by name, on the CPU, such as trained weights; part of a checkpoint
    """

    table: Tensor
    sizes: tuple[int, ...]
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class TopK:
    """A retriever's result: items [B, k] int64, best first, and their scores [B, k] float32.

    Where fewer than k candidates were found, the list is filled up with item 0 and score -inf.
    """

    items: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Ranking:
    """The ranked lists of all queries with their targets: the input of a metric and of a slice.

    users:          [Q] int64, rows of the store
    items:          [Q, K] int64, best first, 0 where fewer than K items were found
    scores:         [Q, K] float32
    targets:        [Q, G] int64, 0-padded
    target_actions: [Q, G] int64, action tokens, 0-padded
    ranks:          [Q, G] int64, pessimistic ranks of the targets: 1 = first, 0 = not in the list. A tie counts against
                    the target: its rank is that of the last item with the same score.
    actions:        the dataset's action names; token t is actions[t - 2]
    pool:           number of candidates
    history_lengths: [Q] int64, number of events of each query's history, also of those that no encoder reads
    training:       the training data: `item_counts()` [N+1], and the `catalogue` with the items' features
    histories:      of Q rows, each query's events before its target; None where they are not known
    target_times:   [Q, G] int64, unix seconds, 0-padded; None where the dataset has no times or the protocol does not
                    give them
    """

    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray
    targets: np.ndarray
    target_actions: np.ndarray
    ranks: np.ndarray
    actions: tuple[str, ...]
    pool: int
    history_lengths: np.ndarray
    training: TrainingData
    histories: Histories | None = None
    target_times: np.ndarray | None = None

    def cut(self, k: int) -> Ranking:
        """The same queries with the first k items of each list.

        Pessimistic ranks stay valid: a rank up to k is the same in any longer list, and a target with a larger rank is
        not in the list of k, so its rank becomes 0.
        """
        ranks = self.ranks * (self.ranks <= k)
        return dataclasses.replace(self, items=self.items[:, :k], scores=self.scores[:, :k], ranks=ranks)


@dataclass(frozen=True)
class Finding:
    """One result of a dataset's validation, about a part of the dataset or one of its features.

    rows: number of rows read, None where the part has no rows; detail: a sentence about what was found.
    """

    part: str
    status: Literal["ok", "absent", "problem"]
    rows: int | None
    detail: str
