"""Cross entropy of what the user does next: the second half of the innovation award's joint objective (paper, 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.types import FIRST_ACTION, Batch, Codes
from grbench_reference.encoders.interfaces import ActionPredictor
from grbench_reference.kernels.embedding import distinct_rows


class NextAction(nn.Module):
    """-log softmax of the action of the event that follows, given the history; not the item, which is to be written.

    Every position that an event with an action follows counts, be its item a target or not: where only clicks are
    targets, what is to be told apart is still clicks from the rest. The paper does not say what the award's winner
    conditioned on.

    Args:
        action_weights: what a position counts by the action that follows; 1 where not named.
    """

    needs: ClassVar[tuple[type, ...]] = (ActionPredictor,)
    weights: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - actions have none
        *,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
    ) -> None:
        super().__init__()
        names, weights = data.catalogue.actions, action_weights or {}
        for name in weights:
            if name not in names:
                raise SuiteError(f"loss.action_weights: no action {name!r} in this dataset; it has {', '.join(names)}")
        if len(names) < 2:
            raise SuiteError("loss: next_action has nothing to tell apart: this dataset has only one kind of action")
        self.register_buffer("weights", torch.tensor([weights.get(name, 1.0) for name in names]), persistent=False)

    def forward(self, encoder: ActionPredictor, batch: Batch) -> Mapping[str, Tensor]:
        logits = encoder.action_logits(batch)
        follows = (batch.next_actions >= FIRST_ACTION) & (batch.items > 0)
        places = follows.reshape(-1).nonzero().squeeze(1)
        actions = batch.next_actions.reshape(-1)[places] - FIRST_ACTION
        chosen = distinct_rows(logits.reshape(-1, logits.shape[-1]), places).float()
        weights = self.weights[actions]
        each = functional.cross_entropy(chosen, actions, reduction="none")
        return {"next_action": (weights * each).sum() / weights.sum().clamp(min=1e-6)}
