"""What the losses share: positions with a target, sampled negatives, logQ correction, masking of the positive.

Shapes: B users, T history length, P positions with a target, S sampled negatives, n distinct negatives, N items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import drawn_alike, gathered
from grbench.errors import SuiteError
from grbench.types import FIRST_ACTION, Batch
from grbench_reference.kernels.embedding import distinct_rows


@dataclass(frozen=True)
class WeightedTargets:
    """The positions of a batch that have a target.

    indices: [P] int64, ascending, into the flattened [B, T + 1] of `batch.all_targets`; targets: [P] items;
    weights: [P] float32.
    """

    batch: Batch
    indices: Tensor
    targets: Tensor
    weights: Tensor

    def states(self, histories: Tensor) -> Tensor:
        """The states that an encoder gave of the batch, [B, T + 1, D] or [B, T, D] -> [P, D]."""
        return distinct_rows(histories.flatten(0, 1), self.batch.rows_of(histories, self.indices))


class TargetSelector(nn.Module):
    """Selects the positions that have a target and weighs each by its target's action: w_a of the challenge paper's
    second-round loss.

    weights: by the name of the action. Actions that are not named, and targets without an action, have weight 1.
    Raises SuiteError for an action that the dataset does not have.
    """

    weight_of_token: Tensor

    def __init__(self, data: TrainingData, weights: Mapping[str, float] | None) -> None:
        super().__init__()
        by_token = [1.0] * FIRST_ACTION + weights_by_action(data, weights)
        self.register_buffer("weight_of_token", torch.tensor(by_token), persistent=False)

    def total_weight(self, batch: Batch) -> Tensor:
        """-> scalar, the weights of all positions that have a target."""
        weights = self.weight_of_token[batch.all_next_actions]
        return (weights * (batch.all_targets > 0)).sum()

    def forward(self, batch: Batch) -> WeightedTargets:
        """Only these positions get logits."""
        targets = batch.all_targets.reshape(-1)
        indices = targets.nonzero().squeeze(1)
        weights = self.weight_of_token[batch.all_next_actions.reshape(-1)[indices]]
        return WeightedTargets(batch, indices, targets[indices], weights)


def weights_by_action(data: TrainingData, weights: Mapping[str, float] | None) -> list[float]:
    """One weight for each of the dataset's actions, 1 for those not named; raises SuiteError for unknown names."""
    actions, named = data.catalogue.actions, weights or {}
    for name in named:
        if name not in actions:
            raise SuiteError(f"loss.action_weights: no action {name!r} in this dataset; it has {', '.join(actions)}")
    return [named.get(name, 1.0) for name in actions]


LogQ = Literal["none", "negatives", "yi", "onepiece"]
"""The variants of logQ correction, which `NegativeSampler` describes."""


@dataclass(frozen=True)
class Negatives:
    """Negatives that all positions share. items: [n] distinct, ascending; log_weights: [n], added to their logits;
    positive_log_weights: [P], added to the positives' logits; repetitions: [P], log of the number of copies of the
    positive in the softmax, its own included, which have one term together. None = zeros."""

    items: Tensor
    log_weights: Tensor | None
    positive_log_weights: Tensor | None = None
    repetitions: Tensor | None = None


def uniform_pool(data: TrainingData, pool: Literal["trained", "all"]) -> Tensor:
    """[n] int64, ascending: the items that uniform negatives are drawn from, with a training event (trained) or all."""
    if pool == "trained":
        return torch.from_numpy(data.item_counts() > 0).nonzero().squeeze(1)
    return torch.arange(1, data.catalogue.num_items + 1)


def draw_uniform(pool: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[shape] items drawn uniformly from `pool`, with replacement."""
    return pool[torch.randint(len(pool), shape, device=pool.device)]


def target_shares(data: TrainingData) -> Tensor:
    """[N+1] float32, p_i: each item's share of the training targets, clamped so that log(p_i) and log(1 - p_i) exist.

    Every event is a target, or those of the protocol's target actions. An item that is never a target gets the share of
    one that is a target once; the shares of the other items do not change, so the sum may exceed 1.
    """
    tokens = data.target_actions
    names = None if tokens is None else [data.catalogue.actions[token - FIRST_ACTION] for token in tokens]
    counts = torch.tensor(data.item_counts(names), dtype=torch.float64)
    return (counts.clamp(min=1) / counts.sum().clamp(min=1)).clamp(max=1 - 1e-6).float()


class PopularityDistribution(nn.Module):
    """Draws items with probability proportional to (training events) ** power, with replacement.

    A draw is a binary search in the cumulative probabilities: 0.8 us on one core at 4.8 million items. An alias table
    would draw in constant time, but the time saved is small beside the embedding of the item drawn.
    """

    items: Tensor
    cumulative: Tensor
    shares: Tensor

    def __init__(self, data: TrainingData, power: float) -> None:
        super().__init__()
        counts = torch.tensor(data.item_counts())
        items = counts.nonzero().squeeze(1)
        cumulative = counts[items].double().pow(power).cumsum(0)  # in float32 rare items would round to probability 0
        cumulative = cumulative / cumulative[-1].clone()
        self.register_buffer("items", items.int(), persistent=False)
        self.register_buffer("cumulative", cumulative, persistent=False)
        shares = torch.zeros(len(counts))
        shares[items] = cumulative.diff(prepend=cumulative.new_zeros(1)).float()
        self.register_buffer("shares", shares, persistent=False)

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """-> [*shape] int64 items."""
        uniform = torch.rand(shape, dtype=torch.float64, device=self.cumulative.device)
        drawn: Tensor = self.items[torch.searchsorted(self.cumulative, uniform, right=True)].long()
        return drawn


class NegativeSampler(nn.Module):
    """Samples the negatives that all positions of a step share.

    An item sampled c times is embedded once and weighted by c. With logQ correction, each copy of item i is weighted by
    1 / E_i, where E_i is the expected number of copies of i in a step. With several sources E_i is the sum over the
    sources (the balance heuristic of Veach and Guibas 1995):

        E_i = uniform / |pool| + popularity * q_i + (1 - (1 - p_i)^P) + b * p_i
        q_i = count_i^power / sum over items j of count_j^power
        p_i = training targets that are i / all training targets

    The third term is the probability that i is the target of at least one of the step's P positions, because in-batch
    negatives are the distinct targets. b is the number of targets in the memory bank.

    logq: which of the logits are corrected, and which copies of an item count. The positive t of a position has the
    logit s_t.
        none: nothing is corrected. The softmax is over t and the negatives other than t.
        negatives: those negatives are corrected, and s_t is not, so that their sum estimates the full softmax's without
            bias (Bengio and Senecal 2008).
        yi: s_t is corrected too, by - log E_t, like every other logit (Yi et al., RecSys 2019, equation 3). They
            estimate the chance of being in a batch from a stream; here it is known from the training targets.
        onepiece: as yi, but in-batch negatives are the targets of all other positions, repetitions included, those that
            are t itself too, and the third term is P * p_i (code of shuoyang2/OnePiece, and of
            yiyidaishui7/tencentgr-1m-2025-reproduction, which use in-batch negatives alone).

    uniform: number drawn per step, with replacement, from `pool`: items with a training event (trained), or all items.
    popularity: number drawn per step, with replacement, in proportion to (training events) ** `popularity_power`.
    A power of 1 is the distribution of in-batch negatives; word2vec's .75 (Mikolov et al. 2013, arXiv 1310.4546) lies
    between that and uniform.
    in_batch: whether each target of the step is a negative of the other positions.
    bank: size of the memory bank: the newest targets of earlier training steps are negatives too, with repetitions.
    This is the cross-batch memory of XBM (arXiv 1912.06798) and CBNS (arXiv 2110.15154), with one difference: those
    store vectors, without gradient, because encoding an image again is expensive; this one stores item ids and embeds
    them again, which costs a table look-up. So vectors are never stale, they receive gradients, and repeated items are
    embedded once. The bank starts empty and is filled in training mode only.
    """

    pool: Tensor
    shares: Tensor
    bank: Tensor

    def __init__(
        self,
        data: TrainingData,
        *,
        logq: LogQ,
        pool: Literal["trained", "all"],
        uniform: int = 0,
        popularity: int = 0,
        popularity_power: float = 1.0,
        in_batch: bool = False,
        bank: int = 0,
    ) -> None:
        super().__init__()
        self.uniform, self.popularity, self.in_batch, self.logq = uniform, popularity, in_batch, logq
        self.repeats = logq == "onepiece"  # whether in-batch negatives have repetitions
        self.distinct = not (uniform or popularity or bank or self.repeats)
        self.distribution = PopularityDistribution(data, popularity_power) if popularity else None
        self.register_buffer("pool", uniform_pool(data, pool), persistent=False)
        counted = logq != "none" and (in_batch or bank > 0)
        self.register_buffer("shares", target_shares(data) if counted else None, persistent=False)
        self.register_buffer("bank", torch.zeros(bank, dtype=torch.int64))  # part of the checkpoint

    def forward(self, targets: Tensor) -> Negatives:
        """targets [P] -> the step's negatives. In training mode the targets are added to the memory bank."""
        stored = self.bank[self.bank > 0]
        sources = [stored]
        if self.uniform:
            sources.append(drawn_alike(lambda: draw_uniform(self.pool, (self.uniform,))))
        if (distribution := self.distribution) is not None:
            sources.append(drawn_alike(lambda: distribution.draw((self.popularity,))))
        # On several devices the negatives are those of the whole batch, and the same on each.
        seen = gathered(targets) if self.in_batch or len(self.bank) else targets
        if self.in_batch:
            sources.append(seen if self.repeats else torch.unique(seen))
        items, copies = torch.unique(torch.cat(sources), return_counts=True)
        if self.training and len(self.bank):
            self.bank.copy_(torch.cat([self.bank, seen])[-len(self.bank) :])
        if self.logq == "none":
            return Negatives(items, None if self.distinct else copies.float().log())
        log_weights = copies.float().log() - self._expected_copies(items, len(seen), len(stored)).log()
        if self.logq == "negatives":
            return Negatives(items, log_weights)
        positive = -self._expected_copies(targets, len(seen), len(stored)).log()
        if not self.repeats:
            return Negatives(items, log_weights, positive)
        # All copies of the positive have its logit: they are one term of the softmax, and the loss is of one of them.
        copied = positive_among(targets, items)
        others = torch.where(copied >= 0, copies[copied] - int(self.in_batch), 0) if len(items) else targets * 0
        repetitions = (others + 1).float().log()
        return Negatives(items, log_weights, positive + repetitions, repetitions)

    def fill_bank(self) -> None:
        """Fills the memory bank with items of the pool, all different if the pool is as large as the bank."""
        indices = torch.arange(len(self.bank), device=self.pool.device) % max(len(self.pool), 1)
        self.bank.copy_(self.pool[indices])

    def _expected_copies(self, items: Tensor, positions: int, stored: int) -> Tensor:
        """items [n] -> [n] E_i. `stored`: targets in the memory bank. The uniform term is the same for all items, also
        for a target that is not in the pool."""
        expected = torch.full(items.shape, self.uniform / len(self.pool), device=items.device)
        if self.distribution is not None:
            expected = expected + self.popularity * self.distribution.shares[items]
        if self.in_batch and self.repeats:
            expected = expected + positions * self.shares[items]
        elif self.in_batch:
            expected = expected - torch.expm1(positions * torch.log1p(-self.shares[items]))
        if stored:
            expected = expected + stored * self.shares[items]
        return expected


def positive_among(targets: Tensor, negatives: Tensor) -> Tensor:
    """targets [P], negatives [n] distinct and ascending -> [P] the index of each position's positive among the
    negatives, -1 where it is not among them. The loss must mask that negative for that position.
    """
    indices = torch.searchsorted(negatives, targets).clamp(max=max(len(negatives) - 1, 0))
    return torch.where(negatives[indices] == targets, indices, -1) if len(negatives) else torch.full_like(targets, -1)
