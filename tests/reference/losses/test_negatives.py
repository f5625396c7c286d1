"""Positions, sampling, the logQ correction and the masking of positives, by hand and by exhaustion."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import batch_of, featured, training_data

from grbench.errors import SuiteError
from grbench_reference.losses.negatives import (
    NegativeSampler,
    PopularityDistribution,
    TargetSelector,
    draw_uniform,
    positive_among,
    target_shares,
    uniform_pool,
)


def test_only_positions_with_a_target(tmp_path):
    select_targets = TargetSelector(featured(tmp_path), {"click": 2.5})
    batch = batch_of([1, 2], [3], targets=[[2, 0], [4]], length=3)
    batch.next_actions[0, 1], batch.next_actions[1, 2] = 3, 1
    positions = select_targets(batch)
    assert positions.indices.tolist() == [2, 7]  # of two rows of four, each user's token first
    assert positions.targets.tolist() == [2, 4]
    assert positions.weights.tolist() == [2.5, 1.0]  # a click; an event without an action


def test_unknown_action(tmp_path):
    with pytest.raises(SuiteError, match=r"loss\.action_weights: no action 'buy'.*exposure, click"):
        TargetSelector(featured(tmp_path), {"buy": 1})


@given(st.lists(st.integers(1, 9), max_size=12), st.lists(st.integers(1, 9), max_size=12))
def test_every_copy_of_the_positive_is_found(targets, drawn):
    negatives = torch.unique(torch.tensor(drawn, dtype=torch.int64))
    found = positive_among(torch.tensor(targets, dtype=torch.int64), negatives)
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
    sampler = NegativeSampler(featured(tmp_path), uniform=400, in_batch=False, logq="none", pool="trained")
    negatives = sampler(torch.tensor([1]))
    assert negatives.items.tolist() == [1, 2, 3, 4]
    assert negatives.log_weights.exp().sum().item() == pytest.approx(400)


def test_in_batch_negatives_are_the_distinct_targets(tmp_path):
    sampler = NegativeSampler(featured(tmp_path), uniform=0, in_batch=True, logq="none", pool="trained")
    negatives = sampler(torch.tensor([4, 2, 4]))
    assert negatives.items.tolist() == [2, 4]
    assert negatives.log_weights is None


def test_logq_by_hand(tmp_path):
    """Ten events: items 1..4 have 2, 3, 3, 2; in a step of 3 positions item 1 is met with chance 1 - (1 - p)^3."""
    data = featured(tmp_path)
    assert data.item_counts().tolist() == [0, 2, 3, 3, 2, 0, 0]
    shares = target_shares(data)
    # Items 5 and 6 count 1, so that none has chance 0; the others have their share of the ten events all the same.
    assert shares[1:].tolist() == pytest.approx([0.2, 0.3, 0.3, 0.2, 0.1, 0.1])
    sampler = NegativeSampler(data, uniform=8, in_batch=True, logq="negatives", pool="trained")
    torch.manual_seed(0)
    negatives = sampler(torch.tensor([1, 3, 1]))
    place = negatives.items.tolist().index(1)
    torch.manual_seed(0)
    copies = 1 + (draw_uniform(sampler.pool, (8,)) == 1).sum().item()
    expected = 8 / 4 + 1 - (1 - 2 / 10) ** 3
    assert negatives.log_weights[place].item() == pytest.approx(math.log(copies / expected), abs=1e-5)


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_popular_items_are_drawn_as_often_as_said(tmp_path, power):
    """Items 1..4 have 2, 3, 3, 2 of the training events, 5 and 6 none: they are never drawn."""
    popular = PopularityDistribution(featured(tmp_path), power)
    chances = torch.tensor([0.0, 2, 3, 3, 2, 0, 0]).pow(power) * torch.tensor([0.0, 1, 1, 1, 1, 0, 0])
    chances = chances / chances.sum()
    torch.testing.assert_close(popular.shares, chances)
    torch.manual_seed(0)
    drawn = popular.draw((200, 100))
    assert drawn.shape == (200, 100)
    assert drawn.dtype == torch.int64
    torch.testing.assert_close(torch.bincount(drawn.reshape(-1), minlength=7) / 20_000, chances, atol=0.01, rtol=0)


def test_the_ends_of_the_running_sum_are_items(tmp_path, monkeypatch):
    popular = PopularityDistribution(featured(tmp_path), 1.0)
    ends = torch.tensor([0.0, 0.2 - 1e-12, 0.2 + 1e-12, 1 - 2**-53], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *size, **options: ends)
    assert popular.draw((4,)).tolist() == [1, 1, 2, 4]


def test_the_bank_holds_the_newest_targets_of_earlier_training_steps(tmp_path):
    sampler = NegativeSampler(featured(tmp_path), bank=4, logq="none", pool="trained")
    assert sampler(torch.tensor([1, 2, 1])).items.tolist() == []  # no step came before
    negatives = sampler(torch.tensor([3]))
    assert negatives.items.tolist() == [1, 2]
    assert negatives.log_weights.exp().tolist() == pytest.approx([2, 1])  # item 1 was a target twice
    negatives = sampler(torch.tensor([4, 4]))
    assert negatives.items.tolist() == [1, 2, 3]
    assert sampler.bank.tolist() == [1, 3, 4, 4]
    sampler.eval()
    assert sampler(torch.tensor([2])).items.tolist() == [1, 3, 4]
    assert sampler.bank.tolist() == [1, 3, 4, 4]  # what is evaluated leaves no trace
    sampler.train()
    sampler(torch.tensor([1, 2, 3, 4, 1, 2]))
    assert sampler.bank.tolist() == [3, 4, 1, 2]
    again = NegativeSampler(featured(tmp_path / "again"), bank=4, logq="none", pool="trained")
    again.load_state_dict(sampler.state_dict())
    assert again(torch.tensor([1])).items.tolist() == [1, 2, 3, 4]


def test_a_filled_bank(tmp_path):
    sampler = NegativeSampler(featured(tmp_path), bank=6, logq="none", pool="trained")
    sampler.fill_bank()
    assert sampler.bank.tolist() == [1, 2, 3, 4, 1, 2]


def test_all_sources_add_up_in_logq_by_hand(tmp_path):
    """As above, with 5 draws by popularity (item 1: 2 of 10 events) and two of the bank's three places filled."""
    data = featured(tmp_path)
    sampler = NegativeSampler(data, uniform=8, popularity=5, in_batch=True, bank=3, logq="negatives", pool="trained")
    sampler(torch.tensor([1, 1]))
    torch.manual_seed(0)
    negatives = sampler(torch.tensor([1, 3, 1]))
    torch.manual_seed(0)
    drawn = torch.cat([draw_uniform(sampler.pool, (8,)), sampler.distribution.draw((5,))])
    copies = 2 + 1 + (drawn == 1).sum().item()
    expected = 8 / 4 + 5 * 2 / 10 + 1 - (1 - 2 / 10) ** 3 + 2 * 2 / 10
    place = negatives.items.tolist().index(1)
    assert negatives.log_weights[place].item() == pytest.approx(math.log(copies / expected), abs=1e-5)


def test_the_corrected_sum_is_unbiased(tmp_path):
    """Over many steps the weighted sum over negatives comes to the sum over all items, popular or not."""
    data = training_data(tmp_path, [[(1, 0, t) for t in range(6)] + [(2, 0, 9), (3, 0, 10), (3, 0, 11)]])
    torch.manual_seed(0)
    shares = target_shares(data)[1:]
    scores = torch.tensor([0.5, 3.0, 1.0])
    every = {"uniform": 2, "popularity": 1, "popularity_power": 0.5, "in_batch": True, "bank": 3}
    for sources in ({"uniform": 2}, {"in_batch": True}, {"uniform": 2, "in_batch": True}, {"popularity": 3}, every):
        sampler = NegativeSampler(data, logq="negatives", pool="trained", **sources)
        total = 0.0
        for _ in range(1500):
            targets = 1 + torch.multinomial(shares, 2, replacement=True)
            negatives = sampler(targets)
            total += float((scores[negatives.items - 1] * negatives.log_weights.exp()).sum()) / 1500
        assert total == pytest.approx(scores.sum().item(), rel=0.06)
