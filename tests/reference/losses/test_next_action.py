"""Next-action cross entropy, worked out with torch's own."""

import math

import pytest
import torch
from code_worlds import codes_of, decoder, world
from torch import nn
from torch.nn import functional
from worlds import after_events, batch_of, training_data

from grbench.errors import SuiteError
from grbench_reference.layers.interfaces import ActionPredictor
from grbench_reference.losses.next_action import NextAction


@pytest.fixture
def data(tmp_path):
    return world(tmp_path)


class Fixed(nn.Module):
    """The same logits at every position: exposure 0, click log 3, so one in four is an exposure."""

    def action_logits(self, batch):
        return torch.tensor([0.0, math.log(3)]).expand(*batch.items.shape, 2)


def test_by_hand(data):
    batch = batch_of([1, 2, 3], [4], targets=[[2, 0, 0], [0]])
    batch.next_actions[:] = torch.tensor(
        [[2, 3, 1], [0, 0, 3]]
    )  # an event without an action, and one that nothing follows
    batch.items[1, 2] = 0
    plain = NextAction(data, codes_of(data))(Fixed(), batch)
    torch.testing.assert_close(plain["next_action"], torch.tensor(-(math.log(1 / 4) + math.log(3 / 4)) / 2))
    weighted = NextAction(data, codes_of(data), action_weights={"click": 3.0})(Fixed(), batch)
    torch.testing.assert_close(weighted["next_action"], torch.tensor(-(math.log(1 / 4) + 3 * math.log(3 / 4)) / 4))


@pytest.mark.parametrize("history", ["items", "codes"])
def test_gradients_equal_torch(data, history):
    encoder = decoder(data, codes_of(data), history=history)
    batch = batch_of([1, 2, 3], [4, 2])
    batch.next_actions[:] = torch.tensor([[2, 3, 3], [0, 3, 2]])
    found = NextAction(data, codes_of(data))(encoder, batch)["next_action"]
    logits = after_events(encoder.action_logits(batch), batch)[batch.items > 0]
    expected = functional.cross_entropy(logits, torch.tensor([0, 1, 1, 1, 0]))
    torch.testing.assert_close(found, expected)
    sides = [
        torch.autograd.grad(value, list(encoder.parameters()), allow_unused=True, materialize_grads=True)
        for value in (found, expected)
    ]
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_it_can_be_learnt(data):
    """What follows item 1 is a click, what follows item 4 is none."""
    encoder = decoder(data, codes_of(data), dropout=0.0).train()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.01)
    batch = batch_of([1], [4])
    batch.next_actions[:] = torch.tensor([[3], [2]])
    loss = NextAction(data, codes_of(data))
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(encoder, batch)["next_action"]
        value.backward()
        optimizer.step()
    assert value < 0.05
    assert after_events(encoder.eval().action_logits(batch), batch).argmax(-1).tolist() == [[1], [0]]


def test_nothing_follows(data):
    encoder = decoder(data, codes_of(data))
    batch = batch_of([1, 2], targets=[[0, 0]])
    assert NextAction(data, codes_of(data))(encoder, batch)["next_action"].item() == 0


def test_options_that_do_not_fit(data, tmp_path):
    with pytest.raises(SuiteError, match="no action 'like'"):
        NextAction(data, codes_of(data), action_weights={"like": 1.0})
    one_kind = training_data(tmp_path / "one", [[(1, 0, 1), (2, 0, 2)]], actions=("review",))
    with pytest.raises(SuiteError, match="only one kind of action"):
        NextAction(one_kind, codes_of(data))
    assert NextAction.needs == (ActionPredictor,)
