"""What losses share: the positions to learn from, negatives, their correction, and the masking of the positive.

Shapes: B users, T history length, P positions with a target, S sampled negatives, n distinct negatives, N items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.types import FIRST_ACTION, Batch


@dataclass(frozen=True)
class TargetPositions:
    """places: [P] in the flattened [B * T] grid, ascending; targets: [P] items; weights: [P] float32."""

    places: Tensor
    targets: Tensor
    weights: Tensor


class ActionWeights(nn.Module):
    """w_a of the paper's second-round loss: what each position counts, by the action its target has.

    An action that is not named, and an event without an action, counts 1.
    """

    by_token: Tensor

    def __init__(self, data: TrainingData, weights: Mapping[str, float], where: str) -> None:
        super().__init__()
        actions = data.catalogue.actions
        for name in weights:
            if name not in actions:
                raise SuiteError(
                    f"{where}.action_weights: no action {name!r} in this dataset; it has {', '.join(actions)}"
                )
        by_token = [1.0] * FIRST_ACTION + [weights.get(name, 1.0) for name in actions]
        self.register_buffer("by_token", torch.tensor(by_token), persistent=False)

    def forward(self, batch: Batch) -> TargetPositions:
        """The positions with a target, so that no logit is computed for any other."""
        targets = batch.targets.reshape(-1)
        places = targets.nonzero().squeeze(1)
        weights = self.by_token[batch.next_actions.reshape(-1)[places]]
        return TargetPositions(places, targets[places], weights)


@dataclass(frozen=True)
class Negatives:
    """items: [n] distinct, ascending; log_weights: [n], added to their logits (None = zeros)."""

    items: Tensor
    log_weights: Tensor | None


def uniform_pool(data: TrainingData, pool: Literal["trained", "all"]) -> Tensor:
    """The items that uniform negatives are drawn from: those with a training event, or all there are; ascending."""
    if pool == "trained":
        return torch.from_numpy(data.item_counts() > 0).nonzero().squeeze(1)
    return torch.arange(1, data.catalogue.num_items + 1)


def draw_uniform(pool: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Items of the pool, with replacement."""
    return pool[torch.randint(len(pool), shape, device=pool.device)]


def target_shares(data: TrainingData) -> Tensor:
    """[N+1] float32, p_i: each item's share of the training targets. Never 0 or 1: logarithms of both are taken.

    Any event may be a target, or those of the actions that the protocol lets be learnt. An item that never is counts as
    one that once was; the others' shares stay as they are, since few of a large catalogue's items may be targets.
    """
    tokens = data.target_actions
    names = None if tokens is None else [data.catalogue.actions[token - FIRST_ACTION] for token in tokens]
    counts = torch.tensor(data.item_counts(names), dtype=torch.float64)
    return (counts.clamp(min=1) / counts.sum().clamp(min=1)).clamp(max=1 - 1e-6).float()


class PopularityNegatives(nn.Module):
    """Draws items with a chance in proportion to (training events) ** power, with replacement.

    A draw is a binary search in the running sum of chances: 0.8 us on one core at 4.8 million items. The constant time
    of an alias table would not show beside what is then done with the item.
    """

    items: Tensor
    running: Tensor
    shares: Tensor

    def __init__(self, data: TrainingData, power: float) -> None:
        super().__init__()
        counts = torch.tensor(data.item_counts())
        items = counts.nonzero().squeeze(1)
        running = counts[items].double().pow(power).cumsum(0)  # in float32 the rare items of millions get no chance
        running = running / running[-1].clone()
        self.register_buffer("items", items.int(), persistent=False)
        self.register_buffer("running", running, persistent=False)
        shares = torch.zeros(len(counts))
        shares[items] = running.diff(prepend=running.new_zeros(1)).float()
        self.register_buffer("shares", shares, persistent=False)

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """Items [*shape] int64."""
        chances = torch.rand(shape, dtype=torch.float64, device=self.running.device)
        drawn: Tensor = self.items[torch.searchsorted(self.running, chances, right=True)].long()
        return drawn


class Sampler(nn.Module):
    """Negatives that all positions of a step share.

    An item met c times is kept once with weight c. With `logq`, every copy of item i is weighted by 1 / E_i, E_i its
    expected number of copies in a step, which makes the sum over negatives an unbiased estimate of the softmax's own
    (Bengio and Senecal 2008; for in-batch negatives Yi et al., RecSys 2019). With several sources E_i adds up, the
    balance heuristic of Veach and Guibas 1995:

        E_i = uniform / |pool| + popularity * q_i + (1 - (1 - p_i)^P) + b * p_i
        q_i = count_i^power / sum over items j of count_j^power
        p_i = training targets that are i / all training targets

    The third term is the chance that i is the target of at least one of the step's P positions: in-batch negatives are
    the distinct targets. b is how many targets the bank holds by now. The positive's own logit is not corrected.

    uniform: how many are drawn a step, with replacement, from `pool`: items with a training event, or all there are.
    popularity: how many are drawn a step, with replacement, in proportion to training events to the power
    `popularity_power`: 1 is what in-batch negatives follow; word2vec's .75 (Mikolov et al. 2013, arXiv 1310.4546) lies
    between that and uniform.
    in_batch: whether every target of the step is a negative of the other positions.
    bank: the newest so many targets of earlier training steps stay negatives, repeated ones as often as they came: the
    cross-batch memory of XBM (arXiv 1912.06798) and CBNS (arXiv 2110.15154). Those keep vectors as they were, without
    gradient; here items are kept and embedded anew, since an item costs rows of tables where an image costs a network:
    nothing goes stale, the rows learn, and an item that is there twice is embedded once. It starts empty, and only
    steps in training mode fill it.
    """

    pool: Tensor
    shares: Tensor
    bank: Tensor

    def __init__(
        self,
        data: TrainingData,
        *,
        logq: bool,
        pool: Literal["trained", "all"],
        uniform: int = 0,
        popularity: int = 0,
        popularity_power: float = 1.0,
        in_batch: bool = False,
        bank: int = 0,
    ) -> None:
        super().__init__()
        self.uniform, self.popularity, self.in_batch, self.logq = uniform, popularity, in_batch, logq
        self.each_once = not (uniform or popularity or bank)
        self.popular = PopularityNegatives(data, popularity_power) if popularity else None
        self.register_buffer("pool", uniform_pool(data, pool), persistent=False)
        counted = logq and (in_batch or bank > 0)
        self.register_buffer("shares", target_shares(data) if counted else None, persistent=False)
        self.register_buffer("bank", torch.zeros(bank, dtype=torch.int64))  # saved: a resumed run goes on with it

    def forward(self, targets: Tensor) -> Negatives:
        """targets [P] -> this step's negatives."""
        banked = self.bank[self.bank > 0]
        sources = [banked]
        if self.uniform:
            sources.append(draw_uniform(self.pool, (self.uniform,)))
        if self.popular is not None:
            sources.append(self.popular.draw((self.popularity,)))
        if self.in_batch:
            sources.append(torch.unique(targets))
        items, copies = torch.unique(torch.cat(sources), return_counts=True)
        if self.training and len(self.bank):
            self.bank.copy_(torch.cat([self.bank, targets])[-len(self.bank) :])
        if self.each_once and not self.logq:
            return Negatives(items, None)
        log_weights = copies.float().log()
        if self.logq:
            log_weights = log_weights - self._expected(items, len(targets), len(banked)).log()
        return Negatives(items, log_weights)

    def fill(self) -> None:
        """Fills the bank with different items, as far as there are so many."""
        places = torch.arange(len(self.bank), device=self.pool.device) % max(len(self.pool), 1)
        self.bank.copy_(self.pool[places])

    def _expected(self, items: Tensor, positions: int, banked: int) -> Tensor:
        """[n] E_i. An item that the pool lacks can only come from the batch, and then counts as if it were in it."""
        expected = torch.full(items.shape, self.uniform / len(self.pool), device=items.device)
        if self.popular is not None:
            expected = expected + self.popularity * self.popular.shares[items]
        if self.in_batch:
            expected = expected - torch.expm1(positions * torch.log1p(-self.shares[items]))
        if banked:
            expected = expected + banked * self.shares[items]
        return expected


def copies_of_positive(targets: Tensor, negatives: Tensor) -> Tensor:
    """targets [P], negatives [n] distinct and ascending -> [P], where each position's positive is among the negatives.

    -1 where it is not. That negative must be masked for that position: it is no negative there.
    """
    places = torch.searchsorted(negatives, targets).clamp(max=max(len(negatives) - 1, 0))
    return torch.where(negatives[places] == targets, places, -1) if len(negatives) else torch.full_like(targets, -1)
