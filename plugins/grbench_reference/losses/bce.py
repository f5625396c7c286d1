"""Binary cross entropy against a few drawn negatives a position: SASRec's loss, and the paper's released code's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from grbench.data.training_data import TrainingData
from grbench.interfaces import Embedder
from grbench.types import Batch, Codes
from grbench_reference.kernels.embedding import distinct_rows
from grbench_reference.losses.negatives import ActionWeights, PopularityNegatives, draw_uniform, uniform_pool


class BCE(nn.Module):
    """-log sigmoid(positive) - log sigmoid(-negative), each averaged over positions by their action's weight.

    A negative that happens to be the position's positive is masked. The released code redraws negatives that the user
    has met; this does not.

    Args:
        negatives: drawn for every position (released code: 1); their mean is taken.
        temperature: logits are divided by it.
        action_weights: what a position counts by its target's action; 1 where not named.
        sampling: negatives are drawn uniformly, or in proportion to training events.
        popularity_power: of the training events that popularity draws by; 1 = as in the data, .75 = word2vec's.
        pool: uniform negatives come from the items with a training event (trained), or from all.
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder,)
    pool: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - items as such
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
        self.positions = ActionWeights(data, action_weights or {}, "loss")
        self.popular = PopularityNegatives(data, popularity_power) if sampling == "popularity" else None
        self.register_buffer("pool", uniform_pool(data, pool), persistent=False)

    def forward(self, encoder: Embedder, batch: Batch) -> Mapping[str, Tensor]:
        positions = self.positions(batch)
        count = len(positions.targets)
        shape = (count, self.negatives)
        drawn = draw_uniform(self.pool, shape) if self.popular is None else self.popular.draw(shape)
        histories, vectors = encoder.embed(batch, torch.cat([positions.targets, drawn.reshape(-1)]))
        states = distinct_rows(histories.reshape(-1, histories.shape[-1]), positions.places) / self.temperature
        positives, others = torch.split(vectors, [count, count * self.negatives])
        positive = softplus(-(states * positives).sum(-1))
        logits = (states.unsqueeze(1) * others.view(count, self.negatives, vectors.shape[1])).sum(-1)
        true = (drawn != positions.targets.unsqueeze(1)).to(logits.dtype)
        negative = (softplus(logits) * true).sum(1) / true.sum(1).clamp(min=1)
        weight = positions.weights.sum().clamp(min=1e-6)
        return {
            "positive": (positions.weights * positive).sum() / weight,
            "negative": (positions.weights * negative).sum() / weight,
        }
