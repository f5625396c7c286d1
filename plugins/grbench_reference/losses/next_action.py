"""Cross entropy of the next action: the second term of the innovation award's joint objective (challenge paper,
section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Loss
from grbench.types import FIRST_ACTION, Batch, Codes
from grbench_reference.kernels.embedding import distinct_rows
from grbench_reference.layers.interfaces import ActionPredictor
from grbench_reference.losses.negatives import weights_by_action


class NextAction(nn.Module, Loss):
    """-log softmax of the next event's action, given the history without the next item.

    All positions that are followed by an event with an action count, whether or not that event is a training target of
    the protocol: where only clicks are targets, the loss still learns to tell clicks from exposures. The paper does not
    say what the award's winner conditioned the prediction on.

    Args:
        action_weights: weight of a position, by its next action; 1 for actions not named.

    Raises SuiteError where the dataset has a single action, or lacks an action that is named.
    """

    needs: ClassVar[tuple[type, ...]] = (ActionPredictor,)
    weights: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - it predicts actions, not codes
        *,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
    ) -> None:
        super().__init__()
        weights = weights_by_action(data, action_weights)
        if len(weights) < 2:
            raise SuiteError("loss: next_action has nothing to learn: this dataset has only one kind of action")
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def weight(self, batch: Batch) -> Tensor:
        """Of the positions, by their next actions."""
        weights = self.weights[(batch.all_next_actions - FIRST_ACTION).clamp(min=0)]
        return (weights * _has_next_action(batch)).sum()

    def forward(self, encoder: ActionPredictor, batch: Batch) -> Mapping[str, Tensor]:
        logits = encoder.action_logits(batch)
        indices = _has_next_action(batch).reshape(-1).nonzero().squeeze(1)
        actions = batch.all_next_actions.reshape(-1)[indices] - FIRST_ACTION
        selected = distinct_rows(logits.flatten(0, 1), batch.rows_of(logits, indices)).float()
        weights = self.weights[actions]
        losses = functional.cross_entropy(selected, actions, reduction="none")
        return {"next_action": (weights * losses).sum() / weights.sum().clamp(min=1e-6)}


def _has_next_action(batch: Batch) -> Tensor:
    """[B, T + 1] bool: the user's token and the events that an event with an action follows."""
    has_next_action = batch.all_next_actions >= FIRST_ACTION
    has_next_action[:, 1:] &= batch.items > 0
    return has_next_action
