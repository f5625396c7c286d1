"""Interfaces that reference encoders have beside those of the core: logits before they are multiplied out, logits of
the next action, judgements of partial code paths, intents that are denoised, states of several tasks, and scores of
candidates.

Shapes: B users, T history length, P positions with a target, D width, n codes that items have at a level, A actions, Q
paths of a user, l codes of a path, L levels, R rows (beams of all users), W places of a row, C candidates of a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from grbench.errors import SuiteError

if TYPE_CHECKING:
    from torch import Tensor

    from grbench.interfaces import DecoderState
    from grbench.types import Batch
    from grbench_reference.layers.intent_diffusion import Hypotheses, IntentDiffusion
    from grbench_reference.layers.path_heads import PathContext


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
class CodeLearner(Protocol):
    """A Decoder whose codes may change while it is trained."""

    def learns_codes(self) -> bool:
        """Whether the encoder's options say so."""

    def item_codes(self, items: Tensor) -> Tensor | None:
        """items [P] -> [P, L] int64, their codes as they are now; None = those of the tokenizer."""


def check_codes_stay(encoder: object, part: str) -> None:
    """Raises SuiteError where the encoder learns codes, for a part, such as `loss path_value`, that writes the
    tokenizer's."""
    if isinstance(encoder, CodeLearner) and encoder.learns_codes():
        raise SuiteError(
            f"{part}: its paths are of the tokenizer's codes, and those of an encoder with `learn_codes` change; leave "
            "out one of the two"
        )


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


@runtime_checkable
class TaskPredictor(Protocol):
    """An Embedder that has a state for each of several tasks: one for each of the dataset's actions, in their order,
    and one for value, which is that of `Embedder.embed`."""

    def task_states(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, T, A + 1, D] or [B, T + 1, A + 1, D], as `Embedder.embed`; [N, D])."""


@dataclass(frozen=True)
class Ranked:
    """Scores of candidates, [B, W, C]. generated: of generation, the inner products of states and vectors, divided by
    the encoder's temperature; ranked: of the ranking stage, by which they are ordered."""

    generated: Tensor
    ranked: Tensor


@runtime_checkable
class CandidateRanker(Protocol):
    """An encoder with a ranking stage for candidates that were retrieved."""

    def rank(self, batch: Batch, columns: Tensor, candidates: Tensor) -> Ranked:
        """columns [B, W], of the [B, T + 1] of `batch.all_targets`: the places after whose events candidates [B, W, C]
        are scored, each by itself."""

    def rank_newest(self, batch: Batch, candidates: Tensor) -> Tensor:
        """candidates [B, C] -> [B, C], the ranking stage's scores after the newest event."""
