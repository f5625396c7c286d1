"""What actions do to tokens, scores and states, worked out by hand."""

import math

import pytest
import torch

from grbench_reference.blocks import causal_attention, with_key_bias
from grbench_reference.conditioning import TokenActions, action_bias, next_action_head, token_actions

TOKENS = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
ACTIONS = torch.tensor([0, 3])


def conditioned(kind, row):
    """The tokens where action token 3 has this row; the first token has no action."""
    actions = TokenActions(kind, 2, 2)
    actions.table.weight.data[3] = torch.tensor(row)
    return actions(TOKENS, ACTIONS)


def test_additive():
    assert torch.equal(conditioned("additive", [10.0, 20.0]), torch.tensor([[1.0, 2.0], [13.0, 16.0]]))


def test_gate():
    """2 sigmoid(log 3) = 3 / 2."""
    expected = torch.tensor([[1.0, 2.0], [4.5, -4.0]])
    torch.testing.assert_close(conditioned("gate", [math.log(3), 0.0]), expected)


def test_film():
    """scale (1, 0), shift (0, 5)."""
    assert torch.equal(conditioned("film", [1.0, 0.0, 0.0, 5.0]), torch.tensor([[1.0, 2.0], [6.0, 1.0]]))


@pytest.mark.parametrize("kind", ["gate", "film"])
def test_neutral_at_first(kind):
    assert torch.equal(TokenActions(kind, 2, 2)(TOKENS, ACTIONS), TOKENS)


def test_which_part_reads_actions():
    assert token_actions("none", 2, 4) is None
    assert token_actions("attention_bias", 2, 4) is None
    assert action_bias("film", 2, 4) is None
    assert action_bias("attention_bias", 2, 4)(ACTIONS).tolist() == [[0.0] * 4] * 2


@pytest.mark.parametrize("share", [0.0, 1e-9])  # torch's kernel, and the path that drops weights
def test_a_bias_of_keys_is_added_to_their_scores(share):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 5, 4).unbind(0)
    bias = torch.randn(2, 3, 5)
    scores = query @ key.transpose(2, 3) / 2 + bias.unsqueeze(2)
    hidden = torch.ones(5, 5).triu(1).bool()
    expected = scores.masked_fill(hidden, -torch.inf).softmax(3) @ value
    torch.testing.assert_close(causal_attention(*with_key_bias(query, key, bias), value, share), expected)


def test_a_state_is_told_or_stays_as_it_is():
    torch.manual_seed(0)
    head = next_action_head(["click"], ("exposure", "click"), 2)
    assert torch.equal(head(TOKENS, torch.tensor([3, 3])), TOKENS)  # neutral at first
    torch.nn.init.normal_(head.down.weight)
    states = head(TOKENS.expand(4, 2, 2), torch.arange(4).unsqueeze(1).expand(4, 2))
    assert [torch.equal(state, TOKENS) for state in states] == [True, True, True, False]
    every = next_action_head(True, ("exposure", "click"), 2)
    assert every.told.tolist() == [False, True, True, True]


@pytest.mark.parametrize("none", [False, []])
def test_nothing_is_told(none):
    assert next_action_head(none, ("click",), 2) is None
