"""Training as most methods do it: a batch's losses, their gradients, an update. Written to be read and copied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from grbench.data.examples import Examples, all_prefixes, consecutive_windows
from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Encoder, Trainer, optional
from grbench.training.state import TrainState, WeightedLosses
from grbench.types import Batch

WeightedTerms = Callable[[nn.Module, WeightedLosses, Batch], dict[str, Tensor]]


class Supervised(Trainer):
    """Minimises the weighted sum of the method's losses.

    Args:
        examples: what an epoch trains on. newest = each user once, by its newest history_length + 1 events; windows =
            its whole history, in consecutive windows of so many; prefixes = one row for each event, with it as the only
            target and the events before it as history.
    """

    def __init__(self, *, examples: Literal["newest", "windows", "prefixes"] = "newest") -> None:
        self.kind = examples
        self.terms: WeightedTerms = weighted_terms

    def start(self, state: TrainState) -> None:
        """Compiles the losses where the options say so. Raises SuiteError where there is no loss."""
        if not state.losses:
            raise SuiteError("trainer supervised: there is no loss to minimise; give the method or its stage a loss")
        if state.options.compile:
            self.terms = torch.compile(weighted_terms)

    def step(self, state: TrainState, batch: Batch) -> Mapping[str, Tensor]:
        """-> `loss`, which is minimised, and its terms."""
        losses = state.weighted_losses(batch)
        with state.autocast():
            terms = self.terms(state.encoder, losses, batch)
            loss = sum_of(terms)
        # Of batches that share an update the gradients are averaged; an epoch's last ones may be fewer.
        first = (state.step - 1) // state.options.accumulate * state.options.accumulate
        size = min(state.options.accumulate, state.steps - first)
        state.backward(loss / size)
        if state.step == first + size:
            state.update()
        return {"loss": loss, **terms}

    def examples(self, data: TrainingData, history_length: int, seed: int, epoch: int) -> Examples | None:
        """See Trainer; None = each user's newest events."""
        if self.kind == "windows":
            return consecutive_windows(data, history_length, seed=seed, epoch=epoch)
        if self.kind == "prefixes":
            return all_prefixes(data, seed=seed, epoch=epoch)
        return None


def weighted_terms(encoder: nn.Module, losses: WeightedLosses, batch: Batch) -> dict[str, Tensor]:
    """-> {term: weighted scalar} of all losses, which share one pass of the encoder where it has one, and of the
    encoder itself; terms of one name add up."""
    terms: dict[str, Tensor] = {}
    with optional(encoder, Encoder.one_pass)() as own_terms:
        for loss, weight in losses:
            for name, value in loss(encoder, batch).items():
                terms[name] = terms.get(name, 0.0) + weight * value
        for name, value in own_terms().items():
            terms[name] = terms.get(name, 0.0) + value
    return terms


def sum_of(terms: Mapping[str, Tensor]) -> Tensor:
    """The terms added up in float32."""
    return torch.stack([term.float() for term in terms.values()]).sum()
