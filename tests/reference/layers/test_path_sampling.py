"""Paths that are sampled, against their exact probabilities in a trie of five codes."""

import dataclasses

import pytest
import torch
from code_worlds import BATCH, ITEMS, TableDecoder, codes_of, decoder, log_probabilities, world
from worlds import batch_of

from grbench.types import Codes
from grbench_reference.codes.prefix_trie import PrefixTrie
from grbench_reference.layers.path_sampling import path_log_probabilities, sample_paths

# Items 1 and 4 share a code; code (1, 2) and first code 2 belong to nobody.
TABLE = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 2], [0, 0], [1, 0], [3, 1], [2, 2]])
TRIE = PrefixTrie(torch.arange(1, 7), Codes(TABLE, (4, 3)))
LEAVES = [(0, 0), (0, 1), (0, 2), (1, 0), (3, 1)]
USERS = 20_000


def same_for_all():
    """A decoder that has one distribution, and users who differ in their noise only."""
    encoder = TableDecoder((4, 3), 1, seed=4)
    encoder.logits = [each.expand(USERS, *each.shape[1:]) for each in encoder.logits]
    return encoder, batch_of(*[[1]] * USERS)


def exact(encoder, temperature=1.0):
    """[5], of the leaves: logits of codes that nobody has count nothing."""
    first, second = (each[0] / temperature for each in encoder.logits)
    first = first[[0, 1, 3]].softmax(0)
    second = torch.cat([second[0].softmax(0), torch.ones(2)])  # 1 and 3 have a single child
    return first[[0, 0, 0, 1, 2]] * second


def assert_frequencies(counts, probabilities, draws):
    """Within five standard deviations."""
    spread = (draws * probabilities * (1 - probabilities)).sqrt()
    assert ((counts - draws * probabilities).abs() < 5 * spread + 1).all()


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_with_replacement_frequencies_are_probabilities(temperature):
    encoder, batch = same_for_all()
    sampled = sample_paths(encoder, batch, TRIE, 3, seed=1, temperature=temperature)
    probabilities = exact(encoder, temperature)
    for sample in range(3):
        counts = torch.bincount(sampled.leaves[:, sample], minlength=5)
        assert_frequencies(counts, probabilities, USERS)
    # Samples of a user are independent of one another.
    pairs = torch.bincount(sampled.leaves[:, 0] * 5 + sampled.leaves[:, 2], minlength=25)
    assert_frequencies(pairs, probabilities.outer(probabilities).flatten(), USERS)
    torch.testing.assert_close(sampled.log_probabilities.sum(2), probabilities.log()[sampled.leaves])
    assert torch.equal(sampled.codes, torch.tensor(LEAVES)[sampled.leaves])
    assert torch.equal(sampled.items, torch.tensor([1, 2, 3, 5, 6])[sampled.leaves])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_without_replacement_each_draw_is_from_what_is_left(temperature):
    encoder, batch = same_for_all()
    sampled = sample_paths(encoder, batch, TRIE, 2, seed=1, replacement=False, temperature=temperature)
    p = exact(encoder, temperature)
    pairs = torch.bincount(sampled.leaves[:, 0] * 5 + sampled.leaves[:, 1], minlength=25).view(5, 5)
    expected = p.unsqueeze(1) * p / (1 - p).unsqueeze(1)
    expected.fill_diagonal_(0)
    assert (pairs.diagonal() == 0).all()
    assert_frequencies(pairs, expected, USERS)
    torch.testing.assert_close(sampled.log_probabilities.sum(2), p.log()[sampled.leaves])


def test_more_than_there_are():
    encoder, batch = same_for_all()
    few = dataclasses.replace(batch, users=batch.users[:3])
    sampled = sample_paths(encoder, few, TRIE, 7, seed=2, replacement=False)
    assert sampled.leaves[:, :5].sort(1).values.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert (sampled.prefixes[:, 5:] == -1).all()
    for missing in (sampled.codes[:, 5:], sampled.items[:, 5:], sampled.log_probabilities[:, 5:]):
        assert (missing == 0).all()
    again = path_log_probabilities(encoder, few, TRIE, sampled.prefixes)
    torch.testing.assert_close(again, sampled.log_probabilities)
    assert sample_paths(encoder, few, TRIE, 7, seed=2).leaves.shape == (3, 7)


@pytest.mark.parametrize("replacement", [True, False])
def test_a_users_sample_depends_neither_on_the_batch_nor_on_its_order(replacement):
    encoder, batch = TableDecoder((4, 3), 50, seed=5), batch_of(*[[1]] * 50)

    def draw(rows, seed=3):
        some = dataclasses.replace(batch, users=batch.users[rows])
        return sample_paths(encoder, some, TRIE, 3, seed=seed, replacement=replacement).leaves

    whole = draw(torch.arange(50))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(order), whole[order])
    assert torch.equal(draw(torch.tensor([17])), whole[17:18])
    assert not torch.equal(draw(torch.arange(50), seed=4), whole)
    assert torch.equal(draw(torch.arange(50)), whole)


@pytest.mark.parametrize("history", ["items", "codes"])
def test_given_paths_have_the_probabilities_of_a_teacher_forced_pass(tmp_path, history):
    data = world(tmp_path)
    codes = codes_of(data)
    encoder, trie = decoder(data, codes, history=history), PrefixTrie(ITEMS, codes)
    sampled = sample_paths(encoder, BATCH, trie, 4, seed=0)
    found = path_log_probabilities(encoder, BATCH, trie, sampled.prefixes)
    torch.testing.assert_close(found.detach(), sampled.log_probabilities)
    assert torch.equal(codes.table[sampled.items], sampled.codes)
    # Over all codes of a level they add up to less: what the codes that nobody has there would get.
    every = log_probabilities(encoder, BATCH, codes, ITEMS)
    assert (found.sum(2) >= every.gather(1, sampled.items - 1) - 1e-6).all()
    all_leaves = torch.arange(trie.num_leaves).expand(4, -1)
    whole = sample_paths(encoder, BATCH, trie, trie.num_leaves, seed=0, replacement=False)
    assert torch.equal(whole.leaves.sort(1).values, all_leaves)
    torch.testing.assert_close(whole.log_probabilities.sum(2).exp().sum(1), torch.ones(4))
    (found[:, 0].sum()).backward()
    assert sum(float(each.grad.abs().sum()) for each in encoder.parameters() if each.grad is not None) > 0
