"""Interfaces of reference encoders beside those of the core, for losses that know a shorter way, or need more.

Shapes: B users, T history length, P positions with a target, D width, n codes that items have at a level, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from grbench.types import Batch


@dataclass(frozen=True)
class LevelStates:
    """A level's logits before they are multiplied out: of code `codes[j]`, states @ vectors[j].

    states: [P, D]; vectors: [n, D]; codes: [n] int64, ascending: those that an item has. No other is ever written.
    """

    states: Tensor
    vectors: Tensor
    codes: Tensor


@runtime_checkable
class CodeScorer(Protocol):
    """A Decoder whose logits are products, so that a loss need not hold all of them at once."""

    def code_states(self, batch: Batch, needed: Tensor | None = None) -> Sequence[LevelStates]:
        """Teacher-forced like Decoder.code_logits -> one a level. needed: [P, L] bool, the positions whose states are
        wanted at each level, in their order; None = all."""


@runtime_checkable
class ActionPredictor(Protocol):
    """The interface of encoders that say what the user will do next."""

    def action_logits(self, batch: Batch) -> Tensor:
        """-> [B, T, A], of the dataset's actions, for the event after each position; blind to `batch.next_actions`."""
