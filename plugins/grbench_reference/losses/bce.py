"""Binary cross entropy with sampled negatives: the loss of SASRec (arXiv 1808.09781) and of the challenge's released
baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from grbench.data.training_data import TrainingData
from grbench.interfaces import Embedder, Loss
from grbench.types import Batch, Codes
from grbench_reference.kernels.embedding import distinct_rows
from grbench_reference.losses.negatives import PopularityDistribution, TargetSelector, draw_uniform, uniform_pool


class BCE(nn.Module, Loss):
    """-log sigmoid(positive) - log sigmoid(-negative), each a mean over positions, weighted by the target's action.

    A negative that equals the position's positive is masked. Unlike the released baseline, negatives from the user's
    own history are not drawn again.

    Args:
        negatives: number drawn for each position (released baseline: 1); their terms are averaged.
        temperature: logits are divided by it.
        action_weights: weight of a position, by the action of its target; 1 for actions not named.
        sampling: negatives are drawn uniformly, or in proportion to training events.
        popularity_power: exponent of the training events with popularity sampling; 1 = as in the data, .75 = word2vec.
        pool: uniform negatives are drawn from the items with a training event (trained), or from all items.
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder,)
    pool: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - the targets are items, not codes
        *,
        negatives: Annotated[int, Field(ge=1)] = 1,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
        sampling: Literal["uniform", "popularity"] = "uniform",
        popularity_power: Annotated[float, Field(ge=0)] = 1.0,
        pool: Literal["trained", "all"] = "trained",
    ) -> None:
        super().__init__()
        self.negatives, self.temperature = negatives, temperature
        self.select_targets = TargetSelector(data, action_weights)
        self.popularity = PopularityDistribution(data, popularity_power) if sampling == "popularity" else None
        self.register_buffer("pool", uniform_pool(data, pool), persistent=False)

    def forward(self, encoder: Embedder, batch: Batch) -> Mapping[str, Tensor]:
        positions = self.select_targets(batch)
        count = len(positions.targets)
        shape = (count, self.negatives)
        drawn = draw_uniform(self.pool, shape) if self.popularity is None else self.popularity.draw(shape)
        histories, vectors = encoder.embed(batch, torch.cat([positions.targets, drawn.reshape(-1)]))
        states = distinct_rows(histories.reshape(-1, histories.shape[-1]), positions.indices) / self.temperature
        positives, negatives = torch.split(vectors, [count, count * self.negatives])
        positive = softplus(-(states * positives).sum(-1))
        negative_logits = (states.unsqueeze(1) * negatives.view(count, self.negatives, vectors.shape[1])).sum(-1)
        unmasked = (drawn != positions.targets.unsqueeze(1)).to(negative_logits.dtype)
        negative = (softplus(negative_logits) * unmasked).sum(1) / unmasked.sum(1).clamp(min=1)
        total_weight = positions.weights.sum().clamp(min=1e-6)
        return {
            "positive": (positions.weights * positive).sum() / total_weight,
            "negative": (positions.weights * negative).sum() / total_weight,
        }
