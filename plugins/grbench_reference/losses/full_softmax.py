"""Cross entropy over all items, which sampled losses approximate. For catalogues small enough to score whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.interfaces import Embedder, Loss
from grbench.types import Batch, Codes
from grbench_reference.kernels.cross_entropy import cross_entropy
from grbench_reference.kernels.embedding import gather_rows
from grbench_reference.losses.negatives import TargetSelector


class FullSoftmax(nn.Module, Loss):
    """-log softmax of the target among all items, a mean over positions weighted by the target's action.

    Args:
        temperature: logits are divided by it.
        label_smoothing: share of the target's probability that is spread evenly over all items.
        action_weights: weight of a position, by the action of its target; 1 for actions not named.
        pool: the softmax is over all items, or over those with a training event (trained), which include every target.
        chunk: positions whose logits are in memory at once; null = as many as fit in 32 MiB (GPU: 1 GiB).
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder,)
    items: Tensor
    index_of: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - the targets are items, not codes
        *,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
        pool: Literal["all", "trained"] = "all",
        chunk: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__()
        self.temperature, self.label_smoothing, self.chunk = temperature, label_smoothing, chunk
        self.select_targets = TargetSelector(data, action_weights)
        included = torch.ones(data.catalogue.num_items + 1, dtype=torch.bool)
        if pool == "trained":
            included = torch.from_numpy(data.item_counts() > 0)
        included[0] = False
        self.register_buffer("items", included.nonzero().squeeze(1), persistent=False)
        self.register_buffer("index_of", included.cumsum(0) - 1, persistent=False)

    def weight(self, batch: Batch) -> Tensor:
        """Of the positions, by their targets' actions."""
        return self.select_targets.total_weight(batch)

    def forward(self, encoder: Embedder, batch: Batch) -> Mapping[str, Tensor]:
        positions = self.select_targets(batch)
        histories, vectors = encoder.embed(batch, self.items)
        states = positions.states(histories)
        indices = self.index_of[positions.targets]
        targets = gather_rows(vectors, indices)
        total = cross_entropy(
            states,
            targets,
            vectors,
            indices,
            weights=positions.weights,
            temperature=self.temperature,
            chunk=self.chunk,
        )
        if self.label_smoothing:
            # The mean of all logits is the logit of the mean vector, so smoothing needs no further logits.
            margin = (states * (targets - vectors.mean(0))).sum(1) / self.temperature
            total = total + self.label_smoothing * (positions.weights * margin).sum()
        return {"full_softmax": total / positions.weights.sum().clamp(min=1e-6)}
