"""The losses of a ranking stage over retrieved candidates: pairs of unequal value, and agreement with generation
(OneRanker, arXiv 2603.02999).

Shapes: B users, T history length, W places of a row, m events ahead, h negatives, C = m + h candidates of a place, S
items drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import averaged, drawn_alike
from grbench.interfaces import Embedder, Loss
from grbench.registry.option_types import Count
from grbench.types import Batch, Codes
from grbench_reference.layers.interfaces import CandidateRanker
from grbench_reference.losses.action_values import Values, values_by_token
from grbench_reference.losses.negatives import draw_uniform, uniform_pool


class ValueRanking(nn.Module, Loss):
    """Candidates of a place are the user's next targets, worth what their action is, and negatives worth nothing.

    value_pairs: -log sigmoid(s_i - s_j) of the ranking stage's scores of any two candidates of which i is worth more,
    a mean weighted by the difference in value. consistency: the mean of KL(p, q) and KL(q, p) of the candidates'
    distributions by generation and by ranking.

    Negatives stand for what would be retrieved: of some items drawn uniformly, those with the highest scores of
    generation. A candidate that is one of the place's next targets is no negative there. Places are drawn in each step,
    those whose next target is worth something first.

    Args:
        values: what an action is worth; null = exposure 0, click 1, conversion 2.5 (the metric's weights), others 1.
        ahead: next targets of a place that are candidates.
        negatives: beside them.
        drawn: items from which a step's negatives are taken.
        places: of each user, in a step.
        consistency: weight of that term.
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder, CandidateRanker)
    values: Tensor
    pool: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - candidates are items, not codes
        *,
        values: Values | None = None,
        ahead: Count = 4,
        negatives: Count = 12,
        drawn: Count = 128,
        places: Count = 8,
        consistency: Annotated[float, Field(ge=0)] = 0.1,
    ) -> None:
        super().__init__()
        self.ahead, self.negatives, self.drawn, self.places = ahead, negatives, drawn, places
        self.consistency = consistency
        self.register_buffer("values", values_by_token(data, values), persistent=False)
        self.register_buffer("pool", uniform_pool(data, "trained"), persistent=False)

    def weight(self, batch: Batch) -> Tensor:
        """The same on each of several devices: terms are divided by the pairs and lists of the whole batch."""
        return torch.ones((), device=batch.items.device)

    def forward(self, encoder: CandidateRanker, batch: Batch) -> Mapping[str, Tensor]:
        """-> `value_pairs`, `consistency`."""
        columns, used = self._places(batch)
        items, values = self._next_targets(batch, columns)
        negatives = self._hardest(encoder, batch, columns, items)
        candidates = torch.cat([items, negatives], 2)
        known = (candidates > 0) & used.unsqueeze(2)
        values = torch.cat([values, values.new_zeros(negatives.shape)], 2)
        scores = encoder.rank(batch, columns, candidates)
        ranked, generated = scores.ranked.float(), scores.generated.float()
        terms = {"value_pairs": value_pairs(ranked, values, known)}
        if self.consistency:
            terms["consistency"] = self.consistency * disagreement(generated, ranked, known)
        return terms

    def _places(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> [B, W] columns of the [B, T + 1] of all targets, and whether each has a target."""
        targets = batch.all_targets
        worth = (targets > 0).float() * (1 + (self.values[batch.all_next_actions] > 0))
        drawn = worth + torch.rand(targets.shape, device=targets.device)
        columns = drawn.topk(min(self.places, targets.shape[1]), 1).indices
        return columns, targets.gather(1, columns) > 0

    def _next_targets(self, batch: Batch, columns: Tensor) -> tuple[Tensor, Tensor]:
        """-> ([B, W, m] the targets of each column and those after it, 0 behind the last; what each is worth)."""
        real = batch.items != 0
        padding = torch.where(real.any(1), real.int().argmax(1), real.shape[1])  # between the user's column and events
        further = torch.arange(self.ahead, device=columns.device)
        ahead = columns.unsqueeze(2) + further
        ahead = ahead + padding[:, None, None] * ((columns == 0).unsqueeze(2) & (further > 0))
        targets, actions = (
            functional.pad(each, (0, self.ahead)) for each in (batch.all_targets, batch.all_next_actions)
        )
        rows = torch.arange(len(columns), device=columns.device)[:, None, None]
        return targets[rows, ahead], self.values[actions[rows, ahead]]

    def _hardest(self, encoder: CandidateRanker, batch: Batch, columns: Tensor, items: Tensor) -> Tensor:
        """-> [B, W, h], of the items drawn those that generation scores highest, without the place's own."""
        drawn = drawn_alike(lambda: draw_uniform(self.pool, (self.drawn,)))
        # With gradients, since `rank` goes on from the states of this pass.
        states, vectors = encoder.embed(batch, drawn)  # type: ignore[attr-defined]
        states, vectors = states.detach(), vectors.detach()
        rows = torch.arange(len(columns), device=columns.device).unsqueeze(1)
        scores = states[rows, columns - (batch.all_targets.shape[1] - states.shape[1])] @ vectors.T
        own = (items.unsqueeze(3) == drawn).any(2)
        best = scores.masked_fill(own, -torch.inf).topk(min(self.negatives, self.drawn), 2)
        return drawn[best.indices].masked_fill(best.values.isneginf(), 0)


def value_pairs(scores: Tensor, values: Tensor, known: Tensor) -> Tensor:
    """scores, values [..., C], known [..., C] bool -> the mean of -log sigmoid(s_i - s_j) over the pairs i, j of each
    list with v_i > v_j, weighted by v_i - v_j; 0 where there is none."""
    more = (values.unsqueeze(-1) - values.unsqueeze(-2)).clamp(min=0)
    weights = more * (known.unsqueeze(-1) & known.unsqueeze(-2))
    losses = functional.softplus(scores.unsqueeze(-2) - scores.unsqueeze(-1))
    return (weights * losses).sum() / averaged(weights.sum()).clamp(min=1e-6)


def disagreement(one: Tensor, other: Tensor, known: Tensor) -> Tensor:
    """Scores one, other [..., C], known [..., C] bool -> the mean over lists with a known candidate of
    (KL(p, q) + KL(q, p)) / 2, p and q the softmax of the known candidates' scores."""
    logs = [each.masked_fill(~known, -1e9).log_softmax(-1) for each in (one, other)]
    shares = logs[0].exp() - logs[1].exp()
    lists = known.any(-1)
    divergence = (shares * (logs[0] - logs[1])).masked_fill(~known, 0).sum(-1) / 2
    return (divergence * lists).sum() / averaged(lists.sum().float()).clamp(min=1e-6)
