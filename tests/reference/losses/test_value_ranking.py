"""Pairs of unequal value and agreement of two distributions, worked out by hand; which candidates a place has."""

import dataclasses
import math

import pytest
import torch
from worlds import batch_of, training_data

from grbench.distributed import ranks
from grbench.errors import SuiteError
from grbench_reference.layers.interfaces import Ranked
from grbench_reference.losses.task_prediction import TaskPrediction
from grbench_reference.losses.value_ranking import ValueRanking, disagreement, value_pairs

EXPOSURE, CLICK, CONVERSION = 2, 3, 4
ACTIONS = ("exposure", "click", "conversion")


@pytest.fixture
def data(tmp_path):
    walk = [(1, 0, 1), (2, 1, 2), (3, 2, 3), (4, 0, 4), (5, 1, 5)]
    return training_data(tmp_path, [walk], num_items=5, actions=ACTIONS)


def taught(*actions):
    """One row of items 1, 2, 3, 4, whose targets 2, 3, 4, 5 have these actions."""
    batch = batch_of([1, 2, 3, 4], targets=[[2, 3, 4, 5]])
    return dataclasses.replace(batch, next_actions=torch.tensor([actions]))


def test_pairs_by_hand():
    """Of values 2.5, 1, 0: three pairs, weighed 1.5, 2.5 and 1. The fourth is unknown, and the second list has none."""
    scores = torch.tensor([[1.0, 2, 0, 9], [0, 1, 2, 3]])
    values = torch.tensor([[2.5, 1, 0, 2.5], [1, 1, 1, 1]])
    known = torch.tensor([[True, True, True, False], [True] * 4])
    lost = 1.5 * math.log(1 + math.e) + 2.5 * math.log(1 + math.exp(-1)) + 1 * math.log(1 + math.exp(-2))
    torch.testing.assert_close(value_pairs(scores, values, known), torch.tensor(lost / 5))
    assert value_pairs(scores[1:], values[1:], known[1:]) == 0


def test_disagreement_by_hand():
    """1/4 and 3/4 against 1/2 and 1/2; the third is unknown. A list without a known candidate does not count."""
    one = torch.tensor([[0.0, math.log(3), 9], [1, 2, 3]])
    other, known = torch.zeros(2, 3), torch.tensor([[True, True, False], [False] * 3])
    there = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    back = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    torch.testing.assert_close(disagreement(one, other, known), torch.tensor((there + back) / 2))
    assert disagreement(one, one, known) == 0


def test_candidates_are_the_next_targets(data):
    loss = ValueRanking(data, None, ahead=2, places=2)
    batch = taught(EXPOSURE, CLICK, CONVERSION, EXPOSURE)
    columns, used = loss._places(batch)
    assert sorted(columns[0].tolist()) == [2, 3]  # whose targets are worth something
    assert used.all()
    items, values = loss._next_targets(batch, torch.tensor([[2, 4]]))
    assert items.tolist() == [[[3, 4], [5, 0]]]
    assert values[0, 0].tolist() == [1, 2.5]
    assert values[0, 1, 0] == 0


def test_behind_the_users_place_come_those_of_its_events(data):
    """Whatever padding lies between them; a user without events has none."""
    loss = ValueRanking(data, None, ahead=3)
    batch = batch_of([1, 2], [], targets=[[2, 3], []], length=4)
    batch = dataclasses.replace(batch, user_targets=torch.tensor([1, 4]))
    items, _ = loss._next_targets(batch, torch.tensor([[0, 3], [0, 4]]))
    assert items.tolist() == [[[1, 2, 3], [2, 3, 0]], [[4, 0, 0], [0, 0, 0]]]


class Fixed(torch.nn.Module):
    """Every state and item i are [i, 1] of the item; generation scores larger items higher; ranking, smaller ones."""

    def embed(self, batch, items):
        states = torch.tensor([1.0, 0]).expand(*batch.all_targets.shape, 2)
        return states, torch.stack([items.float(), torch.ones(len(items))], 1)

    def rank(self, batch, columns, candidates):
        return Ranked(candidates.float(), -candidates.float())


def test_negatives_are_the_best_of_those_drawn_but_the_places_own(data):
    torch.manual_seed(0)
    loss = ValueRanking(data, None, ahead=2, negatives=3, drawn=200)
    batch, columns = taught(EXPOSURE, CLICK, CONVERSION, EXPOSURE), torch.tensor([[2, 4]])
    items, _ = loss._next_targets(batch, columns)
    assert loss._hardest(Fixed(), batch, columns, items).tolist() == [[[5, 5, 5], [4, 4, 4]]]


def test_the_whole_loss_by_hand(data):
    """The one place: targets 3 (a click) and 4 (a conversion) against 5, of which ranking prefers 3 and 4."""
    torch.manual_seed(0)
    loss = ValueRanking(data, None, ahead=2, negatives=1, drawn=200, places=1, consistency=2.0)
    batch = taught(0, CLICK, CONVERSION, 0)
    batch.targets[:, [0, 2, 3]] = 0  # so that 4 is no target, and the place of 3 alone is drawn
    terms = loss(Fixed(), batch)
    torch.testing.assert_close(terms["value_pairs"], torch.tensor(math.log(1 + math.exp(-2))))
    share = 1 / (1 + math.exp(2))
    expected = 2 * (1 - 2 * share) * math.log((1 - share) / share)
    torch.testing.assert_close(terms["consistency"], torch.tensor(expected))


def test_unknown_actions_are_refused(data):
    for loss in (ValueRanking, TaskPrediction):
        with pytest.raises(SuiteError, match=r"loss\.values: no action 'buy'"):
            loss(data, None, values={"buy": 1.0})


# --- the tasks


class Tasks(torch.nn.Module):
    """Task t scores item t + 2 with 2, others with 0."""

    def task_states(self, batch, items):
        states = 2 * torch.eye(6)[2:].expand(*batch.all_targets.shape, 4, 6)
        return states, torch.eye(6)[items]


def test_each_task_learns_from_its_targets(data):
    """Exposure from all four targets, click from 3, 4 and 5, conversion from 4 alone; value from 3 and 5 as clicks and
    4 as a conversion. In batch, so that the softmax is over the four targets."""
    loss = TaskPrediction(data, None, negatives={"in_batch": True}, action_weight=0.5)
    terms = loss(Tasks(), taught(EXPOSURE, CLICK, CONVERSION, CLICK))
    total = math.log(math.exp(2) + 3)
    expected = {
        "task_exposure": 0.5 * (total - 2 / 4),
        "task_click": 0.5 * (total - 2 / 3),
        "task_conversion": 0.5 * (total - 2),
        "task_value": total - 2 * 1 / 4.5,
    }
    torch.testing.assert_close(terms, {name: torch.tensor(value) for name, value in expected.items()})


def test_terms_of_unequal_parts_average_to_those_of_the_batch(data, monkeypatch):
    """One device has the conversion, the other the clicks; negatives are drawn alike, here as the same two."""
    whole = taught(EXPOSURE, CLICK, CONVERSION, CLICK)
    parts = [
        dataclasses.replace(whole, targets=whole.targets * torch.tensor(kept)) for kept in ([0, 0, 1, 0], [1, 1, 0, 1])
    ]
    losses = [
        TaskPrediction(data, None, negatives={"uniform": 2}),
        ValueRanking(data, None, ahead=1, negatives=1, drawn=2, places=4),
    ]
    monkeypatch.setattr(losses[0].sampler, "pool", torch.tensor([1]))
    monkeypatch.setattr(losses[1], "pool", torch.tensor([1]))
    encoders = [Tasks(), Fixed()]
    for loss, encoder in zip(losses, encoders, strict=True):
        expected, noted = loss(encoder, whole), []
        with monkeypatch.context() as patched:
            patched.setattr(ranks, "_current", Counting(noted))
            loss(encoder, whole)
            totals, found = list(noted), []
            for part in parts:
                patched.setattr(ranks, "_current", Counting([], totals))
                found.append(loss(encoder, part))
        for name, term in expected.items():
            torch.testing.assert_close((found[0][name] + found[1][name]) / 2, term)
        assert loss.weight(whole) == 1


class Counting(ranks.Ranks):
    """Two devices whose sums are given in turn; without, one is noted as if it were of both."""

    def __init__(self, noted, totals=None):
        super().__init__(0, 2)
        self.noted, self.totals = noted, totals

    def total(self, values):
        self.noted.append(values)
        return 2 * values if self.totals is None else self.totals[len(self.noted) - 1]

    def drawn_alike(self, draw):
        return draw()

    def concatenated(self, rows):
        return rows
