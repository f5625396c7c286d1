"""Rewards and advantages, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from grbench.errors import SuiteError
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench_reference.trainers.advantages import EPSILON, group_advantages, sibling_advantages
from grbench_reference.trainers.rewards import REWARDS, Samples

NOBODY_LEFT_OUT = torch.tensor([True])


def gain(rank):
    return 1 / math.log2(rank + 1)


def samples(paths, chances, target):
    """One user's. paths: lists of codes, of which the trie's numbers are made up: one a prefix."""
    numbers = {}
    prefixes = [
        [numbers.setdefault(tuple(path[: level + 1]), len(numbers)) for level in range(len(path))] for path in paths
    ]
    return Samples(
        torch.tensor([prefixes]), torch.tensor([paths]), torch.tensor([target]), torch.tensor([chances]).log()
    )


# The list by probability: [1, 0] with .4, the target [0, 1] with .2, drawn twice, [0, 2] with .1, [2, 0] with .05.
LIST = samples([[0, 1], [1, 0], [0, 2], [0, 1], [2, 0]], [0.2, 0.4, 0.1, 0.2, 0.05], [0, 1])


def test_hit():
    assert REWARDS["hit"](LIST).tolist() == [[1, 0, 0, 1, 0]]


def test_prefix_counts_leading_codes_only():
    assert REWARDS["prefix"](LIST).tolist() == [[1, 0, 0.5, 1, 0]]
    second_code_alone = samples([[1, 1]], [0.5], [0, 1])
    assert REWARDS["prefix"](second_code_alone).tolist() == [[0]]


def test_rank_gain_is_what_an_item_adds_to_the_lists_ndcg():
    assert LIST.ranks.tolist() == [[2, 1, 3, 2, 4]]
    expected = [gain(2), gain(2) - gain(1), 0, gain(2), 0]
    assert REWARDS["rank_gain"](LIST)[0].tolist() == pytest.approx(expected)


def test_rank_gain_of_a_list_without_the_target():
    assert REWARDS["rank_gain"](samples([[0, 0], [1, 0]], [0.5, 0.4], [0, 1])).tolist() == [[0, 0]]


def test_a_tie_counts_against_the_target():
    tied = samples([[0, 1], [1, 0]], [0.3, 0.3], [0, 1])
    assert REWARDS["rank_gain"](tied)[0, 0].item() == pytest.approx(gain(2))


def test_an_unknown_reward_is_refused_by_name():
    with pytest.raises(SuiteError, match=r"reward.*'hit', 'prefix' or 'rank_gain'"):
        Registry.load().build("trainers", Component("grpo", {"reward": "clicks"}))


# --- advantages


def test_group_advantages():
    rewards = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]])
    real = torch.tensor([True, True])
    one = 0.5 / (0.5 + EPSILON)
    assert group_advantages(rewards, "group", real).tolist() == [pytest.approx([one, -one, -one, one]), [0] * 4]
    assert group_advantages(rewards, "none", real)[0].tolist() == [0.5, -0.5, -0.5, 0.5]
    of_batch = 0.5 / (math.sqrt(0.25 / 2) + EPSILON)  # half of the advantages are 1/2 from 0
    assert group_advantages(rewards, "batch", real)[0, 0].item() == pytest.approx(of_batch)
    first_alone = torch.tensor([True, False])
    assert group_advantages(rewards, "batch", first_alone)[0, 0].item() == pytest.approx(one)


# Prefixes 0 and 1 of the first level; 0 has children 10 and 11, 1 has 12. Values: 0 -> 1/2 of four samples, 1 -> 0.
REWARDS_OF_SIBLINGS = torch.tensor([[1.0, 1, 0, 0, 0, 0]])
PREFIXES = torch.tensor([[[0, 10], [0, 10], [0, 11], [0, 11], [1, 12], [1, 12]]])


def test_sibling_advantages():
    found = sibling_advantages(REWARDS_OF_SIBLINGS, PREFIXES, "none", NOBODY_LEFT_OUT)[0]
    # At the root the mean is 1/3: 1/2 - 1/3 and 0 - 1/3. Below 0 it is 1/2: 1 - 1/2 and 0 - 1/2. 12 has no sibling.
    assert found[:, 0].tolist() == pytest.approx([1 / 6] * 4 + [-1 / 3] * 2)
    assert found[:, 1].tolist() == pytest.approx([0.5, 0.5, -0.5, -0.5, 0, 0])


def test_sibling_advantages_are_scaled_among_siblings():
    found = sibling_advantages(REWARDS_OF_SIBLINGS, PREFIXES, "group", NOBODY_LEFT_OUT)[0]
    deviation = math.sqrt(4 / 6 * (1 / 6) ** 2 + 2 / 6 * (1 / 3) ** 2)
    assert found[0, 0].item() == pytest.approx(1 / 6 / (deviation + EPSILON))
    assert found[:, 1].tolist() == pytest.approx([0.5 / (0.5 + EPSILON)] * 2 + [-0.5 / (0.5 + EPSILON)] * 2 + [0] * 2)


def test_siblings_of_one_level_are_the_group():
    rewards, prefixes = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[[3], [5], [5], [9]]])
    for scale in ("group", "none"):
        found = sibling_advantages(rewards, prefixes, scale, NOBODY_LEFT_OUT)[:, :, 0]
        assert found[0].tolist() == pytest.approx(group_advantages(rewards, scale, NOBODY_LEFT_OUT)[0].tolist())


def test_unscaled_sibling_advantages_have_the_gradient_of_rewards_less_their_siblings_mean():
    """Whatever depends on the sampled codes alone, such as the gradient of their probability, weighs the same."""
    torch.manual_seed(0)
    rewards, prefixes = torch.rand(1, 12), torch.stack([torch.randint(3, (1, 12)), torch.zeros(1, 12).long()], 2)
    prefixes[:, :, 1] = prefixes[:, :, 0] * 3 + torch.randint(3, (1, 12))
    of_code = torch.rand(9)
    found = sibling_advantages(rewards, prefixes, "none", NOBODY_LEFT_OUT)[0]
    for level, parents in enumerate((torch.zeros(12).long(), prefixes[0, :, 0])):
        means = torch.stack([rewards[0][parents == each].mean() for each in parents])
        weights = of_code[prefixes[0, :, level]]
        assert (found[:, level] * weights).sum().item() == pytest.approx(((rewards[0] - means) * weights).sum().item())
