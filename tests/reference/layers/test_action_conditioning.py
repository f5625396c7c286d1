"""What actions do to tokens, scores and states, worked out by hand."""

import math

import pytest
import torch

from grbench.errors import SuiteError
from grbench.registry.options import bind
from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.encoders.gnn import GNN
from grbench_reference.encoders.hstu import HSTU
from grbench_reference.encoders.sid_decoder import SIDDecoder
from grbench_reference.layers.action_conditioning import TokenActions, action_bias, next_action_head, token_actions
from grbench_reference.layers.transformer import causal_attention, with_key_bias

TOKENS = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
ACTIONS = torch.tensor([0, 3])


def conditioned(kind, row):
    """The tokens where action token 3 has this row; the first token has no action."""
    return in_turn({kind: row})


def in_turn(rows):
    actions = TokenActions(list(rows), 2, 2)
    for table, row in zip(actions.tables, rows.values(), strict=True):
        table.weight.data[3] = torch.tensor(row)
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


def test_several_ways_are_applied_in_the_order_of_the_list():
    """Gated, (3, -4) is (4.5, -4): FiLM gives (10, 1). FiLM first gives (7, 1), and the gate (10.5, 1)."""
    gate, film = [math.log(3), 0.0], [1.0, 0.0, 1.0, 5.0]
    gate_first, film_first = in_turn({"gate": gate, "film": film}), in_turn({"film": film, "gate": gate})
    torch.testing.assert_close(gate_first, torch.tensor([[1.0, 2.0], [10.0, 1.0]]))
    torch.testing.assert_close(film_first, torch.tensor([[1.0, 2.0], [10.5, 1.0]]))


@pytest.mark.parametrize("ways", [["gate"], ["film"], ["gate", "film"]])
def test_neutral_at_first(ways):
    assert torch.equal(TokenActions(ways, 2, 2)(TOKENS, ACTIONS), TOKENS)


@pytest.mark.parametrize(
    ("conditioning", "of_tokens", "of_keys"),
    [
        ("none", (), False),
        ([], (), False),
        ("film", ("film",), False),
        (["film"], ("film",), False),
        ("attention_bias", (), True),
        (["attention_bias"], (), True),
        (["gate", "attention_bias", "film"], ("gate", "film"), True),
    ],
)
def test_which_part_reads_actions(conditioning, of_tokens, of_keys):
    tokens, keys = token_actions(conditioning, 2, 4), action_bias(conditioning, 2, 4)
    assert (tokens.ways if of_tokens else tokens) == (of_tokens or None)
    assert (keys(ACTIONS).tolist() if of_keys else keys) == ([[0.0] * 4] * 2 if of_keys else None)


def test_a_way_named_twice():
    for part in (token_actions, action_bias):
        with pytest.raises(SuiteError, match=r"^encoder\.action_conditioning: film is named twice; name each way"):
            part(["film", "gate", "film"], 2, 4)


@pytest.mark.parametrize("factory", [CausalTransformer, HSTU, GNN, SIDDecoder])
def test_none_is_no_way_among_others(factory):
    with pytest.raises(SuiteError, match=r'^e\.action_conditioning: should be none \| .*, got \["none","film"\]$'):
        bind(factory, {"action_conditioning": ["none", "film"]}, "e")
    assert bind(factory, {"action_conditioning": "film"}, "e")["action_conditioning"] == "film"


@pytest.mark.parametrize("share", [0.0, 1e-9])  # torch's kernel, and the path that drops weights
def test_a_bias_of_keys_is_added_to_their_scores(share):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 5, 4).unbind(0)
    bias = torch.randn(2, 3, 5)
    scores = query @ key.transpose(2, 3) / 2 + bias.unsqueeze(2)
    hidden = torch.ones(5, 5).triu(1).bool()
    expected = scores.masked_fill(hidden, -torch.inf).softmax(3) @ value
    torch.testing.assert_close(causal_attention(*with_key_bias(query, key, bias), value, share), expected)


def test_a_state_is_conditioned_or_stays_as_it_is():
    torch.manual_seed(0)
    head = next_action_head(["click"], ("exposure", "click"), 2)
    assert torch.equal(head(TOKENS, torch.tensor([3, 3])), TOKENS)  # neutral at first
    torch.nn.init.normal_(head.down.weight)
    states = head(TOKENS.expand(4, 2, 2), torch.arange(4).unsqueeze(1).expand(4, 2))
    assert [torch.equal(state, TOKENS) for state in states] == [True, True, True, False]
    every = next_action_head(True, ("exposure", "click"), 2)
    assert every.conditioned.tolist() == [False, True, True, True]


@pytest.mark.parametrize("none", [False, []])
def test_conditioned_on_nothing(none):
    assert next_action_head(none, ("click",), 2) is None
