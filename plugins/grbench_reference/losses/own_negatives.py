"""The base of losses that compare each position's positive with negatives of its own, drawn for it alone.

Shapes: P positions with a target, n negatives of a position.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.interfaces import Embedder, Loss
from grbench.registry.option_types import Count, OptionGroup
from grbench.types import Batch, Codes
from grbench_reference.losses.negatives import PopularityDistribution, TargetSelector, draw_uniform, uniform_pool


@dataclass(frozen=True, kw_only=True)
class OwnNegativeOptions(OptionGroup):
    """How many negatives a position has, where they come from, and how positions are weighted.

    Args:
        negatives: number drawn for each position (challenge paper and its released baseline: 1).
        temperature: logits are divided by it.
        action_weights: weight of a position, by the action of its target; 1 for actions not named.
        sampling: negatives are drawn uniformly, or in proportion to training events.
        popularity_power: exponent of the training events with popularity sampling; 1 = as in the data, .75 = word2vec.
        pool: uniform negatives are drawn from the items with a training event (trained), or from all items.
    """

    negatives: Count = 1
    temperature: Annotated[float, Field(gt=0)] = 1.0
    action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    sampling: Literal["uniform", "popularity"] = "uniform"
    popularity_power: Annotated[float, Field(ge=0)] = 1.0
    pool: Literal["trained", "all"] = "trained"


class OwnNegatives(nn.Module, Loss, ABC):
    """Draws the negatives and computes all logits; `terms`, the subclass's, compares them.

    A negative that equals the position's positive is masked. Unlike in the challenge's released baseline, negatives
    from the user's own history are not drawn again.
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder,)
    pool: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - the targets are items, not codes
        *,
        options: OwnNegativeOptions = OwnNegativeOptions(),
    ) -> None:
        super().__init__()
        self.negatives, self.temperature = options.negatives, options.temperature
        self.select_targets = TargetSelector(data, options.action_weights)
        self.popularity = (
            PopularityDistribution(data, options.popularity_power) if options.sampling == "popularity" else None
        )
        self.register_buffer("pool", uniform_pool(data, options.pool), persistent=False)

    @abstractmethod
    def terms(self, positive: Tensor, negative: Tensor, unmasked: Tensor) -> Mapping[str, Tensor]:
        """Logits positive [P] and negative [P, n], unmasked [P, n] bool -> {term: [P], of each position}."""

    def weight(self, batch: Batch) -> Tensor:
        """Of the positions, by their targets' actions."""
        return self.select_targets.total_weight(batch)

    def forward(self, encoder: Embedder, batch: Batch) -> Mapping[str, Tensor]:
        """-> each term's mean over positions, weighted by the target's action."""
        positions = self.select_targets(batch)
        count = len(positions.targets)
        shape = (count, self.negatives)
        drawn = draw_uniform(self.pool, shape) if self.popularity is None else self.popularity.draw(shape)
        histories, vectors = encoder.embed(batch, torch.cat([positions.targets, drawn.reshape(-1)]))
        states = positions.states(histories) / self.temperature
        positives, negatives = torch.split(vectors, [count, count * self.negatives])
        positive = (states * positives).sum(-1)
        negative = (states.unsqueeze(1) * negatives.view(count, self.negatives, vectors.shape[1])).sum(-1)
        terms = self.terms(positive, negative, drawn != positions.targets.unsqueeze(1))
        total_weight = positions.weights.sum().clamp(min=1e-6)
        return {name: (positions.weights * term).sum() / total_weight for name, term in terms.items()}
