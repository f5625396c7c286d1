"""DiffuReason (arXiv 2602.09744): think, then denoise the intent that thinking came to.

Shapes: B users, T history length, P tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field
from torch import Tensor

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.registry.option_types import Natural
from grbench.types import Batch, Codes
from grbench_reference.encoders.causal_transformer import CausalTransformer, TransformerOptions
from grbench_reference.encoders.history_encoder import HistoryOptions
from grbench_reference.encoders.one_pass import OnePass
from grbench_reference.layers.intent_diffusion import Hypotheses, IntentDiffusion
from grbench_reference.layers.thinking import ThinkingTokens
from grbench_reference.layers.token_packing import Layout, lay_out

DIFFUSION_HIDDEN = 2
"""Hidden width of the denoiser, in widths."""


class DiffuReason(CausalTransformer):
    """`causal_transformer`, whose state after each event thinks in a few latent tokens; the intent that this comes to
    is denoised in a few steps, and compared with item vectors.

    As in the paper: thinking tokens after the history give a hypothesis of the intent; a diffusion model that is
    conditioned on it and on the history refines it; one model is trained by a ranking loss, the loss `denoising` and,
    by the trainer `diffuse`, a ranking reward. Its text leaves the rest open, so these are ours: each thinking token is
    the one before it after one block; the denoiser is an MLP of the noisy intent, the hypothesis, the history's state
    and the noise level, and expects the target's vector; denoising starts at the hypothesis, partly noised, and search
    follows the means of the steps, without noise. `thinking: 0` and `steps: 0` leave `causal_transformer`.

    Args:
        thinking: latent tokens after each event; 0 = none.
        steps: of denoising; 0 = none, the hypothesis is the intent.
        noise: deviation of the noise that denoising starts with, of numbers with mean square 1.
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        thinking: Natural = 2,
        steps: Natural = 4,
        noise: Annotated[float, Field(gt=0, lt=1)] = 0.6,
        transformer: TransformerOptions = TransformerOptions(
            width=64,
            blocks=2,
            heads=2,
            activation="swiglu",
            norm="rmsnorm",
            norm_placement="pre",
            positions="rotary",
        ),
        history: HistoryOptions = HistoryOptions(similarity="cosine"),
    ) -> None:
        super().__init__(data, codes, transformer=transformer, history=history)
        if not self.cosine:
            raise SuiteError("encoder.similarity: an intent that is denoised is a direction; it should be cosine")
        width, heads = transformer.width, transformer.heads
        hidden = max(1, round(transformer.feed_forward * width))
        self.thinking = (
            ThinkingTokens(width, heads, count=thinking, hidden=hidden, dropout=transformer.dropout)
            if thinking
            else None
        )
        self.diffusion = (
            IntentDiffusion(width, steps=steps, noise=noise, hidden=DIFFUSION_HIDDEN * width) if steps else None
        )
        self._hypotheses: OnePass[Hypotheses] = OnePass()

    @contextmanager
    def one_pass(self) -> Iterator[Callable[[], Mapping[str, Tensor]]]:
        """Inside, a batch's histories are encoded once, however many losses need them. Yields a function that gives no
        further loss terms."""
        with self._hypotheses.open(), super().one_pass() as own_terms:
            yield own_terms

    def intent_diffusion(self) -> IntentDiffusion | None:
        """The denoiser; None with `steps: 0`."""
        return self.diffusion

    def hypotheses(self, batch: Batch) -> Hypotheses:
        """After each event, [B, T, D]; with a user token [B, T + 1, D], its own first."""
        if self._hypotheses.is_open and self._hypotheses.get(batch) is None:
            self.embed(batch, batch.items.new_empty(0))  # which later losses need too
        known = self._hypotheses.get(batch)
        if known is not None:
            return known
        layout = lay_out(batch, user_token=self.user_token)
        (events,) = self.items.each_once(layout.take(batch.items))
        return _in_batch(layout, self._think(batch, layout, events))

    def newest_hypotheses(self, batch: Batch) -> Hypotheses:
        """After the newest event, [B, D]."""
        layout = lay_out(batch, user_token=self.user_token)
        (events,) = self.items.each_once(layout.take(batch.items))
        return Hypotheses(*(layout.newest(each) for each in self._think(batch, layout, events)))

    def _states(self, batch: Batch, layout: Layout, events: Tensor) -> Tensor:
        """See HistoryEncoder: the denoised intent of each token."""
        found = self._think(batch, layout, events)
        if self._hypotheses.is_open:
            self._hypotheses.put(batch, _in_batch(layout, found))
        return found.intents if self.diffusion is None else self.diffusion.refined(found)

    def _condition(self, states: Tensor, next_actions: Tensor) -> Tensor:  # noqa: ARG002
        """See HistoryEncoder: what is thought about is conditioned on the next action already."""
        return states

    def _think(self, batch: Batch, layout: Layout, events: Tensor) -> Hypotheses:
        """events [P, D], each token's item vector -> [P, D] each."""
        states = super()._states(batch, layout, events)
        if self.next_action is not None:
            states = self.next_action(states, layout.take(batch.next_actions, batch.user_next_actions))
        return Hypotheses(states if self.thinking is None else self.thinking(states, layout), states)


def _in_batch(layout: Layout, packed: Hypotheses) -> Hypotheses:
    return Hypotheses(*(layout.to_batch(each) for each in packed))
