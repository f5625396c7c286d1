"""Interfaces that reference encoders have beside those of the core: logits before they are multiplied out, and logits
of the next action.

Shapes: B users, T history length, P positions with a target, D width, n codes that items have at a level, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from grbench.types import Batch


@dataclass(frozen=True)
class LevelStates:
    """A level's logits before they are multiplied out: of code `codes[j]`, states @ vectors[j].

    states: [P, D]; vectors: [n, D]; codes: [n] int64, ascending: those that at least one item has.
    """

    states: Tensor
    vectors: Tensor
    codes: Tensor


@runtime_checkable
class CodeScorer(Protocol):
    """A Decoder whose logits are products of states and code vectors, so that a loss can compute them in chunks."""

    def code_states(self, batch: Batch, needed: Tensor | None = None) -> Sequence[LevelStates]:
        """Teacher-forced like Decoder.code_logits -> one a level. needed: [P, L] bool, the positions that each level's
        states are computed of, in their order; None = all."""


@runtime_checkable
class ActionPredictor(Protocol):
    """An encoder that predicts the user's next action."""

    def action_logits(self, batch: Batch) -> Tensor:
        """-> [B, T, A], of the dataset's actions, for the event after each position, or [B, T + 1, A], the user token's
        first, as `Embedder.embed`; `batch.next_actions` does not enter them."""
