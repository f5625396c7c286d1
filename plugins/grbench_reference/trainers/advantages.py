"""Advantages of sampled items: how much better a sample's reward is than that of the samples it is compared with.

Shapes: B users, G samples of a user, L code levels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from grbench.distributed.ranks import averaged

AdvantageScale = Literal["group", "batch", "none"]
EPSILON = 1e-4
"""Added to deviations, so that samples of equal rewards have advantage 0."""


def group_advantages(rewards: Tensor, scale: AdvantageScale, real: Tensor) -> Tensor:
    """rewards [B, G] -> [B, G]: reward less the mean of the user's samples.

    scale: divided by the deviation of the user's rewards (GRPO), by that of the batch's advantages, or not at all.
    real: [B] bool, the users that count.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    if scale == "group":
        return centred / (rewards.std(1, correction=0, keepdim=True) + EPSILON)
    return centred if scale == "none" else _by_batch(centred, real)


def sibling_advantages(rewards: Tensor, prefixes: Tensor, scale: AdvantageScale, real: Tensor) -> Tensor:
    """rewards [B, G], prefixes [B, G, L] numbers of the trie's prefixes -> [B, G, L], for the code of each level.

    A prefix's value is the mean reward of the user's samples that begin with it. A code's advantage is the value of the
    prefix that it ends, less the mean over the samples of the prefix before it: siblings, the children of one prefix,
    are compared with each other only, and each counts as often as it was drawn. A code without sampled siblings has
    advantage 0. scale: divided by the deviation among the siblings, by that of the batch's advantages, or not at all.
    """
    same = prefixes.transpose(1, 2).unsqueeze(3) == prefixes.transpose(1, 2).unsqueeze(2)
    siblings = torch.cat([torch.ones_like(same[:, :1]), same[:, :-1]], 1)
    values = _mean_over(same, rewards.unsqueeze(1).expand(-1, same.shape[1], -1))
    centred = values - _mean_over(siblings, values)
    if scale == "group":
        centred = centred / (_mean_over(siblings, centred.square()).clamp(min=0).sqrt() + EPSILON)
    elif scale == "batch":
        centred = _by_batch(centred, real)
    return centred.transpose(1, 2)


def _mean_over(chosen: Tensor, values: Tensor) -> Tensor:
    """chosen [B, L, G, G] bool, values [B, L, G] -> [B, L, G], the mean of the values that each row chooses."""
    weights = chosen.float()
    return (weights @ values.unsqueeze(3)).squeeze(3) / weights.sum(3)


def _by_batch(centred: Tensor, real: Tensor) -> Tensor:
    """[B, ...] divided by the deviation from 0 over all users that count, of all devices."""
    counted = centred.flatten(1).square().mean(1) * real
    total, users = averaged(torch.stack([counted.sum(), real.float().sum()]))
    deviation: Tensor = (total / users.clamp(min=1e-6)).sqrt()
    return centred / (deviation + EPSILON)
