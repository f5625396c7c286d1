"""Interfaces that reference encoders have beside those of the core: logits before they are multiplied out, logits of
the next action, judgements of partial code paths, and intents that are denoised.

Shapes: B users, T history length, P positions with a target, D width, n codes that items have at a level, A actions, Q
paths of a user, l codes of a path, L levels, R rows (beams of all users).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from grbench.interfaces import DecoderState
    from grbench.types import Batch
    from grbench_reference.layers.path_heads import PathContext
    from grbench_reference.layers.intent_diffusion import Hypotheses, IntentDiffusion


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


@runtime_checkable
class PathVerifier(Protocol):
    """A Decoder that scores partial code paths against a history (`PathVerifierHead`)."""

    def verifies_paths(self) -> bool:
        """Whether the encoder's options give it such a head; without one the other methods raise SuiteError."""

    def path_context(self, batch: Batch) -> PathContext:
        """The states that paths are scored against, one after the user token and each event."""

    def path_scores(self, paths: Tensor, context: PathContext, ends: Tensor | None = None) -> Tensor:
        """paths [B, Q, l] -> [B, Q] float32. ends: [B, Q], in 0..T, the last state that each may read; None = the
        newest."""


@runtime_checkable
class PathValuer(Protocol):
    """A Decoder that predicts the reward of going on from partial code paths (`ValueHead`)."""

    def values_paths(self) -> bool:
        """Whether the encoder's options give it such a head; without one the other methods raise SuiteError."""

    def path_values(self, batch: Batch, paths: Tensor) -> Tensor:
        """paths [B, Q, L], written after the newest event -> [B, Q, L] float32, the values of their prefixes of 0 to
        L - 1 codes; the gradient reaches the head alone."""

    def values(self, state: DecoderState) -> Tensor:
        """[R] float32, of the codes decoded so far."""


@runtime_checkable
class IntentDenoiser(Protocol):
    """An encoder whose states are intents that are denoised, as directions in the space of items."""

    def intent_diffusion(self) -> IntentDiffusion | None:
        """The denoiser and its schedule; None where the options leave it out."""

    def hypotheses(self, batch: Batch) -> Hypotheses:
        """What each state is denoised from, at the places of `Embedder.embed`."""

    def newest_hypotheses(self, batch: Batch) -> Hypotheses:
        """What the state after the newest event is denoised from, [B, D] each."""

    def embed_items(self, items: Tensor) -> Tensor:
        """items [N] -> [N, D], as of Embedder."""
