"""The loss of a diffusion model of users' intents, as in DiffuReason (arXiv 2602.09744).

Shapes: P positions with a target, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Loss
from grbench.types import Batch, Codes
from grbench_reference.kernels.embedding import distinct_rows
from grbench_reference.layers.intent_diffusion import Hypotheses, directions
from grbench_reference.layers.interfaces import IntentDenoiser
from grbench_reference.losses.negatives import TargetSelector


class Denoising(nn.Module, Loss):
    """The squared error of what the denoiser makes of the target's vector after noise, a mean over its numbers and
    over positions weighted by the target's action; vectors have a mean square of 1.

    No gradient reaches the target's vector: the smallest error would be that of equal vectors. Beside it goes a loss
    that ranks items, such as `full_softmax`.

    Args:
        action_weights: weight of a position, by the action of its target; 1 for actions not named.
    """

    needs: ClassVar[tuple[type, ...]] = (IntentDenoiser,)

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - the targets are items, not codes
        *,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
    ) -> None:
        super().__init__()
        self.select_targets = TargetSelector(data, action_weights)

    def weight(self, batch: Batch) -> Tensor:
        """Of the positions, by their targets' actions."""
        return self.select_targets.total_weight(batch)

    def forward(self, encoder: IntentDenoiser, batch: Batch) -> Mapping[str, Tensor]:
        """Raises SuiteError where the encoder has no steps of denoising."""
        denoiser = encoder.intent_diffusion()
        if denoiser is None:
            raise SuiteError("loss denoising: the encoder denoises nothing; set encoder.steps, or leave the loss out")
        positions = self.select_targets(batch)
        every = encoder.hypotheses(batch)
        rows = batch.rows_of(every.states, positions.indices)
        hypotheses = Hypotheses(*(distinct_rows(each.flatten(0, 1), rows) for each in every))
        with torch.no_grad():
            clean = directions(encoder.embed_items(positions.targets))
            noisy, angles = denoiser.noised(clean)
        errors = (denoiser(noisy, angles, hypotheses) - clean).square().mean(1)
        total = (positions.weights * errors).sum() / positions.weights.sum().clamp(min=1e-6)
        return {"denoising": total}
