"""The values that flow between plug-ins. All are frozen: a stage makes new ones, it never edits what it was given.

Shapes: B users, T history length, N items, Q queries, G targets a query, K list length, k list length asked for,
L code levels. Item 0 is padding; items 1..N are real; users are rows 0..U-1 of the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

Report = Callable[..., None]
"""Hears what a cell is doing: an event's name, then what there is to say of it by keyword."""

Progress = Callable[[str, int, int | None], None]
"""Hears how far something is: what, how much is done, how much there is (None where that is not known)."""

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, device

    from grbench.data.training_data import TrainingData

DEFAULT_LIST_LENGTH = 10
"""Items that are shown to each user where no metric has a `k`."""

# Feature codes, item and user alike: three cases that existing code confuses, kept apart, then the values themselves.
PADDING, MISSING, UNKNOWN, FIRST_VALUE = 0, 1, 2, 3

# Action tokens: 0 pads, 1 stands for an event whose action is null, action number a of the dataset is a + 2.
ACTION_MISSING, FIRST_ACTION = 1, 2


@dataclass(frozen=True)
class Batch:
    """Histories, left-padded with 0. In training `targets` holds the next item at each position (0 = no loss here).

    users:   [B] int64, rows of the store
    items:   [B, T] int64
    actions: [B, T] int64, action tokens
    times:   [B, T] int64, unix seconds (0 where the dataset has no times)
    targets: [B, T] int64, the item that follows each position; all 0 in a test batch
    next_actions: [B, T] int64, action token of the item that follows; in a test batch the last one is the
             protocol's choice
    """

    users: Tensor
    items: Tensor
    actions: Tensor
    times: Tensor
    targets: Tensor
    next_actions: Tensor

    def to(self, device: device | str, *, non_blocking: bool = False) -> Self:
        """The same batch on another device."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=non_blocking)
            for field in dataclasses.fields(self)
        }
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory, so that a copy to the GPU does not wait."""
        return dataclasses.replace(
            self, **{field.name: getattr(self, field.name).pin_memory() for field in dataclasses.fields(self)}
        )


@dataclass(frozen=True)
class Codes:
    """Each item's semantic ID. `table` is [N+1, L] int64 (row 0 = padding, all 0); `sizes` holds the codes a level.

    The tokenizer `ids` gives one level whose code is the item itself. `report` is what the tokenizer wants kept in
    the record (utilisation, time), JSON-ready; its `colliding_items`, those that share their code with another, are
    among the record's counts too.
    """

    table: Tensor
    sizes: tuple[int, ...]
    report: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class TopK:
    """What a retriever returns: items [B, k] int64, best first, and their scores [B, k] float32.

    Where fewer than k candidates could be found, the rest is item 0 with score -inf.
    """

    items: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Ranking:
    """Every query's list beside what should have been in it; all that a metric sees.

    users:          [Q] int64, rows of the store
    items:          [Q, K] int64, best first, 0 where the list ended early
    scores:         [Q, K] float32
    targets:        [Q, G] int64, 0-padded
    target_actions: [Q, G] int64, action tokens, 0-padded
    ranks:          [Q, G] int64, 1 = first; 0 = not in the list. Ties are counted against the target: its rank is that
                    of the last item of its score.
    actions:        the dataset's action names; token t stands for actions[t - 2]
    pool:           how many candidates there were
    history_lengths: [Q] int64, events of each query's whole visible history
    training:       the training data: `item_counts()` [N+1], and the `catalogue` with the items' features
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

    def cut(self, k: int) -> Ranking:
        """The same queries with lists of the first k: what a search for k gives where ties keep their order.

        Ranks need no scores for this: a tie counts by its last item, so a rank up to k is the same in any longer list,
        and a target whose rank lies beyond k is not in the list.
        """
        ranks = self.ranks * (self.ranks <= k)
        return dataclasses.replace(self, items=self.items[:, :k], scores=self.scores[:, :k], ranks=ranks)


@dataclass(frozen=True)
class Finding:
    """One line of a dataset's validation: a part of it, or one of its features, and what was read there.

    rows: None where the part has none; detail: in a sentence, what is there or what is wrong.
    """

    part: str
    status: Literal["ok", "absent", "problem"]
    rows: int | None
    detail: str
