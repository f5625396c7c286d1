"""Positions, sampling, the logQ correction and the masking of positives, by hand and by exhaustion."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import batch_of, featured, training_data

from grbench.errors import SuiteError
from grbench_reference.losses.negatives import (
    ActionWeights,
    Sampler,
    copies_of_positive,
    draw_uniform,
    target_shares,
    uniform_pool,
)


def test_only_positions_with_a_target(tmp_path):
    weigh = ActionWeights(featured(tmp_path), {"click": 2.5}, "loss")
    batch = batch_of([1, 2], [3], targets=[[2, 0], [4]], length=3)
    batch.wanted[0, 1], batch.wanted[1, 2] = 3, 1
    positions = weigh(batch)
    assert positions.places.tolist() == [1, 5]
    assert positions.targets.tolist() == [2, 4]
    assert positions.weights.tolist() == [2.5, 1.0]  # a click; an event without an action


def test_unknown_action(tmp_path):
    with pytest.raises(SuiteError, match=r"loss\.action_weights: no action 'buy'.*exposure, click"):
        ActionWeights(featured(tmp_path), {"buy": 1}, "loss")


@given(st.lists(st.integers(1, 9), max_size=12), st.lists(st.integers(1, 9), max_size=12))
def test_every_copy_of_the_positive_is_found(targets, drawn):
    negatives = torch.unique(torch.tensor(drawn, dtype=torch.int64))
    found = copies_of_positive(torch.tensor(targets, dtype=torch.int64), negatives)
    same = torch.tensor(targets, dtype=torch.int64)[:, None] == negatives
    marked = torch.zeros_like(same)
    for position, place in enumerate(found.tolist()):
        if place >= 0:
            marked[position, place] = True
    assert torch.equal(marked, same)


def test_uniform_draws_from_trained_items_or_from_all(tmp_path):
    data = featured(tmp_path)
    torch.manual_seed(0)
    assert set(draw_uniform(uniform_pool(data, "trained"), (500,)).tolist()) == {1, 2, 3, 4}
    assert set(draw_uniform(uniform_pool(data, "all"), (500,)).tolist()) == {1, 2, 3, 4, 5, 6}


def test_an_item_drawn_twice_weighs_two(tmp_path):
    sampler = Sampler(featured(tmp_path), uniform=400, in_batch=False, logq=False, pool="trained")
    negatives = sampler(torch.tensor([1]))
    assert negatives.items.tolist() == [1, 2, 3, 4]
    assert negatives.log_weights.exp().sum().item() == pytest.approx(400)


def test_in_batch_negatives_are_the_distinct_targets(tmp_path):
    sampler = Sampler(featured(tmp_path), uniform=0, in_batch=True, logq=False, pool="trained")
    negatives = sampler(torch.tensor([4, 2, 4]))
    assert negatives.items.tolist() == [2, 4]
    assert negatives.log_weights is None


def test_logq_by_hand(tmp_path):
    """Ten events: items 1..4 have 2, 3, 3, 2; in a step of 3 positions item 1 is met with chance 1 - (1 - p)^3."""
    data = featured(tmp_path)
    assert data.item_counts().tolist() == [0, 2, 3, 3, 2, 0, 0]
    shares = target_shares(data)
    assert shares[1].item() == pytest.approx(2 / 12)  # items 5 and 6 count 1, so that none has chance 0
    sampler = Sampler(data, uniform=8, in_batch=True, logq=True, pool="trained")
    torch.manual_seed(0)
    negatives = sampler(torch.tensor([1, 3, 1]))
    place = negatives.items.tolist().index(1)
    torch.manual_seed(0)
    copies = 1 + (draw_uniform(sampler.pool, (8,)) == 1).sum().item()
    expected = 8 / 4 + 1 - (1 - 2 / 12) ** 3
    assert negatives.log_weights[place].item() == pytest.approx(math.log(copies / expected), abs=1e-5)


def test_the_corrected_sum_is_unbiased(tmp_path):
    """Over many steps the weighted sum over negatives comes to the sum over all items, popular or not."""
    data = training_data(tmp_path, [[(1, 0, t) for t in range(6)] + [(2, 0, 9), (3, 0, 10), (3, 0, 11)]])
    torch.manual_seed(0)
    shares = target_shares(data)[1:]
    scores = torch.tensor([0.5, 3.0, 1.0])
    for uniform, in_batch in ((2, False), (0, True), (2, True)):
        sampler = Sampler(data, uniform=uniform, in_batch=in_batch, logq=True, pool="trained")
        total = 0.0
        for _ in range(1500):
            targets = 1 + torch.multinomial(shares, 2, replacement=True)
            negatives = sampler(targets)
            total += float((scores[negatives.items - 1] * negatives.log_weights.exp()).sum()) / 1500
        assert total == pytest.approx(scores.sum().item(), rel=0.06)
