"""Searches that do not keep the most probable beams: drawn ones, and diverse groups."""

import dataclasses

import pytest
import torch
from code_worlds import TableDecoder
from worlds import batch_of, made_with

from grbench.errors import SuiteError
from grbench.types import Codes
from grbench_reference.retrievers.beam import Beam

# Item i + 1 has code (i // 3, i % 3): all nine of two levels.
CODES = Codes(torch.tensor([[0, 0], *([i // 3, i % 3] for i in range(9))]), (3, 3))
POOL = torch.arange(1, 10)


def search(encoder, count, k=9, rows=None, **options):
    beam = made_with(Beam, **options)
    beam.index(encoder, POOL, CODES)
    batch = batch_of(*[[1]] * count)
    return beam.search(encoder, batch if rows is None else dataclasses.replace(batch, users=batch.users[rows]), k)


def table(*levels):
    """A decoder of one user with these probabilities."""
    encoder = TableDecoder((3, 3), 1)
    encoder.logits = [torch.tensor([level]).log() for level in levels]
    return encoder


def test_a_draw_of_all_is_all():
    encoder = TableDecoder((3, 3), 4)
    drawn, plain = search(encoder, 4, width=9, temperature=0.5, seed=1), search(encoder, 4, width=9)
    assert torch.equal(drawn.items, plain.items)
    assert torch.equal(drawn.scores, plain.scores)


@pytest.mark.parametrize("softmax", ["level", "tree"])
def test_draws_have_their_probabilities_and_are_ranked_by_log_probability(softmax):
    """Of two drawn from all nine, the chance that an item is listed: p_i + sum of p_j p_i / (1 - p_j)."""
    count = 10_000
    encoder = TableDecoder((3, 3), 1, seed=2)
    p = torch.stack([(encoder.logits[0][0].softmax(0).unsqueeze(1) * encoder.logits[1][0].softmax(1))]).flatten()
    encoder.logits = [each.expand(count, *each.shape[1:]) for each in encoder.logits]
    found = search(encoder, count, k=2, width=2, temperature=1.0, seed=3, softmax=softmax)
    listed = torch.bincount(found.items.flatten(), minlength=10)[1:] / count
    odds = p / (1 - p)
    expected = p * (1 + odds.sum() - odds)
    assert ((listed - expected).abs() < 5 * (expected * (1 - expected) / count).sqrt()).all()
    assert (found.scores[:, 0] >= found.scores[:, 1]).all()
    torch.testing.assert_close(found.scores, p.log()[found.items - 1])


def test_a_draw_follows_the_user_and_the_seed():
    encoder = TableDecoder((3, 3), 30)
    whole = search(encoder, 30, k=3, width=3, temperature=1.0, seed=5)
    order = torch.arange(29, -1, -1)
    backwards = search(encoder, 30, k=3, rows=order, width=3, temperature=1.0, seed=5, users_at_once=4)
    assert torch.equal(backwards.items, whole.items[order])
    assert not torch.equal(search(encoder, 30, k=3, width=3, temperature=1.0, seed=6).items, whole.items)
    torch.manual_seed(5)  # as a cell does
    torch.rand(3)
    assert torch.equal(search(encoder, 30, k=3, width=3, temperature=1.0).items, whole.items)


def test_groups_by_hand():
    """Two groups of two beams, penalty log 2.

    Level 1: the first group takes codes 0 and 1 (.5, .3); for the second their halves are .25 and .15, so it takes 0
    and 2 (.2). Level 2: the first group takes (0, 0), .3, and (1, 0), .18, so that a code 0 counts a quarter for the
    second. Of what that one may take, (0, 1) counts .15, (2, 1) .06, (0, 2) .05 and (2, 0) .12 / 4.
    """
    encoder = table([0.5, 0.3, 0.2], [[0.6, 0.3, 0.1]] * 3)
    found = search(encoder, 1, k=5, width=4, groups=2, group_penalty=torch.tensor(2.0).log().item())
    assert found.items.tolist() == [[1, 4, 2, 8, 0]]
    torch.testing.assert_close(found.scores.exp(), torch.tensor([[0.3, 0.18, 0.15, 0.06, 0.0]]))
    plain = search(encoder, 1, k=4, width=4)
    assert plain.items.tolist() == [[1, 4, 2, 7]]


def test_a_harsh_penalty_takes_other_codes_first():
    encoder = table([0.9, 0.06, 0.04], [[0.9, 0.06, 0.04]] * 3)
    found = search(encoder, 1, k=3, width=3, groups=3, group_penalty=100.0)
    assert sorted(found.items[0].tolist()) == [1, 5, 9]  # another first and another second code in each


def test_without_a_penalty_groups_differ_in_items_only():
    encoder = TableDecoder((3, 3), 20, seed=1)
    found = search(encoder, 20, k=4, width=[4, 4], groups=2, group_penalty=0.0)
    assert all(len(set(row)) == 4 for row in found.items.tolist())
    plain = search(encoder, 20, k=2, width=[2, 2])
    assert all(set(few) <= set(more) for few, more in zip(plain.items.tolist(), found.items.tolist(), strict=True))


def test_options_that_do_not_go_together():
    encoder = TableDecoder((3, 3), 1)
    with pytest.raises(SuiteError, match=r"retriever\.temperature: it excludes groups; a search has one of"):
        search(encoder, 1, width=4, groups=2, temperature=1.0)
    with pytest.raises(SuiteError, match=r"retriever\.groups: 5 groups of a beam of 4"):
        search(encoder, 1, width=4, groups=5)
