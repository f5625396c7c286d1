"""Rewards of sampled items: named functions of a list and its target.

Shapes: B users, G samples of a user, L code levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """A list of sampled paths for each user, with the target of training that it should have had.

    prefixes: [B, G, L] int64, the trie's prefix at each level of a sample; two samples are the same where all are.
    codes: [B, G, L]; target: [B, L], the codes of the user's target.
    log_probabilities: [B, G] float32, of whole paths, by the policy that drew them.
    """

    prefixes: Tensor
    codes: Tensor
    target: Tensor
    log_probabilities: Tensor

    @property
    def hits(self) -> Tensor:
        """[B, G] float32, 1 where a sample has all codes of the target."""
        return (self.codes == self.target.unsqueeze(1)).all(2).float()

    @property
    def same(self) -> Tensor:
        """[B, G, G] bool, whether two samples of a user are the same path."""
        return (self.prefixes.unsqueeze(2) == self.prefixes.unsqueeze(1)).all(3)

    @property
    def distinct(self) -> Tensor:
        """[B, G] bool, false for a sample that the user has already: the first of equal ones stands for all."""
        same = self.same
        return same.int().argmax(2) == torch.arange(same.shape[1], device=same.device)

    @property
    def ranks(self) -> Tensor:
        """[B, G] float32: each sample's rank, 1 = first, in the list of the user's different samples by probability.

        A tie counts against a sample, as in evaluation."""
        chances = self.log_probabilities
        above = (chances.unsqueeze(1) >= chances.unsqueeze(2)) & ~self.same & self.distinct.unsqueeze(1)
        return 1.0 + above.sum(2)


Reward = Callable[[Samples], Tensor]
"""A list of samples -> [B, G] float32, the reward of each."""


def hit(samples: Samples) -> Tensor:
    """1 for the target, 0 for any other item."""
    return samples.hits


def prefix(samples: Samples) -> Tensor:
    """The share of leading codes that are the target's: 1 for the target."""
    return (samples.codes == samples.target.unsqueeze(1)).float().cumprod(2).mean(2)


def rank_gain(samples: Samples) -> Tensor:
    """What a sample adds to the NDCG of the list of different samples, ordered by probability: the target's discounted
    gain for the target itself; less than 0 for an item above it, without which the target would be a rank higher; 0
    for items below it, and in a list without it."""
    ranks, hits = samples.ranks, samples.hits
    of_target = (ranks * hits).amax(1, keepdim=True)  # 0 = not in the list
    gained = _discount(of_target) - _discount((of_target - 1).clamp(min=1))
    return torch.where(hits > 0, _discount(ranks), torch.where(ranks < of_target, gained, 0.0))


def _discount(ranks: Tensor) -> Tensor:
    return 1 / torch.log2(ranks + 1)


REWARDS: dict[str, Reward] = {"hit": hit, "prefix": prefix, "rank_gain": rank_gain}
"""Of the items of a sampled list, by the name that the option `reward` gives."""


HIT_CUTOFF = 10

RANK_REWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "hit": lambda ranks: (ranks <= HIT_CUTOFF).float(),
    "rank_gain": _discount,
}
"""The target's ranks [B, G] in lists of their own, 1 = first -> [B, G] float32, the reward of each list."""
