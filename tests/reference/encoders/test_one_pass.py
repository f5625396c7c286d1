"""Several losses over one reading of the history: the same terms and gradients as each by itself, for one backbone."""

import itertools

import pytest
import torch
from code_worlds import BATCH, codes_of, decoder, world
from worlds import made_with

from grbench.cost.flops import FlopCount
from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.encoders.hstu import HSTU
from grbench_reference.encoders.one_pass import OnePass
from grbench_reference.losses.full_softmax import FullSoftmax
from grbench_reference.losses.infonce import InfoNCE
from grbench_reference.losses.next_action import NextAction
from grbench_reference.losses.next_code import NextCode
from grbench_reference.losses.path_value import PathValue
from grbench_reference.trainers.supervised import sum_of, weighted_terms

EXPERTS = {"experts": 2, "active_experts": 1, "balance": 0.25}


@pytest.fixture
def data(tmp_path):
    return world(tmp_path)


def losses_of(data):
    codes = codes_of(data)
    infonce = InfoNCE(data, codes, negatives={"in_batch": True})
    return [(infonce, 0.5), (NextCode(data, codes), 2.0), (NextAction(data, codes), 1.0)]


def gradients(terms, encoder):
    every = list(encoder.parameters())
    return torch.autograd.grad(sum_of(terms), every, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("history", ["items", "codes"])
@pytest.mark.parametrize("options", [{}, {"next_action": True, "item_features": True}])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_equals_separate_passes(data, history, options, order):
    encoder = decoder(data, codes_of(data), history=history, **options)
    losses = [losses_of(data)[place] for place in order]
    readings = []
    encoder.history.backbone.register_forward_hook(lambda *_: readings.append(1))
    together = weighted_terms(encoder, losses, BATCH)
    assert len(readings) == 1
    apart = {name: weight * value for loss, weight in losses for name, value in loss(encoder, BATCH).items()}
    assert len(readings) == 4
    assert together.keys() == apart.keys()
    for name, value in together.items():
        torch.testing.assert_close(value, apart[name])
    for one, other in zip(gradients(together, encoder), gradients(apart, encoder), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("history", ["items", "codes"])
def test_a_loss_that_reads_without_gradients_leaves_the_others_theirs(data, history):
    codes = codes_of(data)
    encoder = decoder(data, codes, history=history, value_head=True)
    losses = [(PathValue(data, codes, samples=2), 1.0), (NextCode(data, codes), 1.0)]
    expected = gradients(weighted_terms(encoder, losses[1:], BATCH), encoder)
    for order in losses, losses[::-1]:
        terms = weighted_terms(encoder, order, BATCH)
        found = gradients({name: value for name, value in terms.items() if name != "path_value"}, encoder)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [CausalTransformer, HSTU])
@pytest.mark.parametrize("options", [{}, {"next_action": True, "user_token": False, "similarity": "cosine"}])
def test_dense_encoders_too(data, kind, options):
    codes = codes_of(data)
    torch.manual_seed(0)
    encoder = made_with(kind, data, codes, width=8, history_length=4, dropout=0.0, **options)
    losses = [
        (InfoNCE(data, codes, negatives={"in_batch": True}), 0.5),
        (FullSoftmax(data, codes), 2.0),
        (InfoNCE(data, codes, negatives={"in_batch": True, "hard": 1}), 0.25),
    ]
    readings = []
    encoder.last_norm.register_forward_hook(lambda *_: readings.append(1))
    together = weighted_terms(encoder, losses, BATCH)
    assert len(readings) == 1
    each = [weight * value for loss, weight in losses for value in loss(encoder, BATCH).values()]
    assert len(readings) == 4
    apart = {"infonce": each[0] + each[2], "full_softmax": each[1]}
    for name, value in apart.items():
        torch.testing.assert_close(together[name], value)
    for one, other in zip(gradients(together, encoder), gradients(apart, encoder), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("history", ["items", "codes"])
def test_the_balance_reaches_any_loss_once(data, history):
    encoder = decoder(data, codes_of(data), history=history, **EXPERTS)
    assert callable(encoder.one_pass)
    balances = []
    for losses in (*([each] for each in losses_of(data)), losses_of(data)):
        terms = weighted_terms(encoder, losses, BATCH)
        assert 0 < terms["balance"] <= 0.25 * 2
        balances.append(terms.pop("balance"))
        assert all(weight_of_router.abs().sum() > 0 for weight_of_router in routers(balances[-1], encoder))
    for balance in balances[1:]:
        torch.testing.assert_close(balance, balances[0])


def routers(value, encoder):
    weights = [parameter for name, parameter in encoder.named_parameters() if "router" in name]
    assert weights
    return torch.autograd.grad(value, weights, retain_graph=True)


def test_without_experts_there_is_no_term_of_its_own(data):
    encoder = decoder(data, codes_of(data))
    assert list(weighted_terms(encoder, losses_of(data)[:1], BATCH)) == ["infonce"]


def test_operations_are_counted_as_they_are_made(data):
    encoder = decoder(data, codes_of(data))

    def flops(losses):
        with FlopCount() as counted:
            weighted_terms(encoder, losses, BATCH)
        return counted.flops

    with FlopCount() as backbone:
        encoder.action_logits(BATCH)
    with FlopCount() as head:
        encoder.action_head(torch.zeros(BATCH.all_targets.numel(), 8))
    once = backbone.flops - head.flops
    _, code, action = losses_of(data)
    assert flops([code, action]) == flops([code]) + flops([action]) - once


@pytest.mark.slow
def test_a_pass_compiles(data):
    encoder = decoder(data, codes_of(data), **EXPERTS)
    arguments = encoder, losses_of(data), BATCH
    expected, found = weighted_terms(*arguments), torch.compile(weighted_terms, backend="eager")(*arguments)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_what_is_kept():
    one, other = "a batch", "another"
    passes = OnePass()
    assert passes.put(one, 1) == 1
    assert passes.get(one) is None  # no pass is open
    with passes.open():
        assert passes.newest is None
        passes.put(one, 1)
        assert (passes.get(one), passes.get(other), passes.newest) == (1, None, 1)
        passes.put(other, 2)
        assert (passes.get(one), passes.get(other), passes.newest) == (None, 2, 2)
    assert (passes.get(other), passes.newest, passes.is_open) == (None, None, False)


def test_what_has_no_gradient_is_not_kept_for_what_needs_one():
    batch, passes = "a batch", OnePass()
    with passes.open():
        with torch.no_grad():
            passes.put(batch, 1)
            assert passes.get(batch) == 1
        assert passes.get(batch) is None
        passes.put(batch, 2)
        with torch.no_grad():
            assert passes.get(batch) == 2
