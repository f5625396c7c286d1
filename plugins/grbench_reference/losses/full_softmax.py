"""Cross entropy over every item: what sampled losses approximate. For catalogues small enough to afford it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.interfaces import Embedder
from grbench.types import Batch, Codes
from grbench_reference.kernels.cross_entropy import cross_entropy
from grbench_reference.kernels.embedding import distinct_rows, gather_rows
from grbench_reference.losses.negatives import ActionWeights


class FullSoftmax(nn.Module):
    """-log softmax of the target among all items, averaged over positions by their action's weight.

    Args:
        temperature: logits are divided by it.
        label_smoothing: share of the target's probability spread over all items.
        action_weights: what a position counts by its target's action; 1 where not named.
        pool: all items, or those with a training event (trained), targets being among both.
        chunk: positions whose logits exist at once; null = what fits in 32 MiB (GPU: 1 GiB).
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder,)
    items: Tensor
    place_of: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - items as such
        *,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
        pool: Literal["all", "trained"] = "all",
        chunk: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__()
        self.temperature, self.label_smoothing, self.chunk = temperature, label_smoothing, chunk
        self.positions = ActionWeights(data, action_weights or {}, "loss")
        chosen = torch.ones(data.catalogue.num_items + 1, dtype=torch.bool)
        if pool == "trained":
            chosen = torch.from_numpy(data.item_counts() > 0)
        chosen[0] = False
        self.register_buffer("items", chosen.nonzero().squeeze(1), persistent=False)
        self.register_buffer("place_of", chosen.cumsum(0) - 1, persistent=False)

    def forward(self, encoder: Embedder, batch: Batch) -> Mapping[str, Tensor]:
        positions = self.positions(batch)
        histories, vectors = encoder.embed(batch, self.items)
        states = distinct_rows(histories.reshape(-1, histories.shape[-1]), positions.places)
        places = self.place_of[positions.targets]
        targets = gather_rows(vectors, places)
        total = cross_entropy(
            states,
            targets,
            vectors,
            places,
            weights=positions.weights,
            temperature=self.temperature,
            chunk=self.chunk,
        )
        if self.label_smoothing:
            # The mean logit of all items is the logit of their mean: smoothing needs no logits of its own.
            above_mean = (states * (targets - vectors.mean(0))).sum(1) / self.temperature
            total = total + self.label_smoothing * (positions.weights * above_mean).sum()
        return {"full_softmax": total / positions.weights.sum().clamp(min=1e-6)}
