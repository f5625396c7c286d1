"""The fused cross entropy against the plain one: values and gradients, in chunks of any size."""

import pytest
import torch
from torch.nn import functional

from grbench_reference.kernels.cross_entropy import _chunk, cross_entropy


def plain(
    states,
    positives,
    negatives,
    copies,
    *,
    weights,
    temperature,
    log_weights=None,
    positive_log_weights=None,
    hardest=None,
    hidden=None,
):
    own = (states * positives).sum(1, keepdim=True) / temperature
    if positive_log_weights is not None:
        own = own + positive_log_weights[:, None]
    logits = states @ negatives.T / temperature
    if log_weights is not None:
        logits = logits + log_weights
    mask = torch.arange(len(negatives)) == copies[:, None]
    logits = logits.masked_fill(mask, -torch.inf)
    if hidden is not None:
        logits = logits.masked_fill(hidden(slice(None)), -torch.inf)
    if hardest is not None:
        logits = logits.sort(1, descending=True).values[:, :hardest]
    logits = torch.cat([own, logits], dim=1)
    labels = torch.zeros(len(states), dtype=torch.int64)
    return (functional.cross_entropy(logits, labels, reduction="none") * weights).sum()


def case(positions=7, negatives=11, width=4):
    torch.manual_seed(1)
    sides = [torch.randn(count, width, requires_grad=True) for count in (positions, positions, negatives)]
    copies = torch.randint(-1, negatives, (positions,))
    return sides, copies, torch.rand(positions), torch.randn(negatives)


@pytest.mark.parametrize("chunk", [1, 3, None])
@pytest.mark.parametrize("hardest", [None, 2])
def test_hidden_negatives_are_none(chunk, hardest):
    """Each position has negatives of its own; the last one has none at all, and is certain."""
    sides, copies, weights, _ = case()
    hide = torch.rand(7, 11) < 0.6
    hide[-1] = True
    rest = {"weights": weights, "temperature": 0.3, "hardest": hardest, "hidden": lambda some: hide[some]}
    expected, found = plain(*sides, copies, **rest), cross_entropy(*sides, copies, chunk=chunk, **rest)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, sides) for value in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert (gradients[0][0][-1] == 0).all()


@pytest.mark.parametrize("chunk", [1, 3, 7, None])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("hardest", [None, 1, 4, 10, 11, 50])
def test_chunks_equal_one_piece(chunk, corrected, hardest):
    sides, copies, weights, log_weights = case()
    rest = {"weights": weights, "temperature": 0.3, "log_weights": log_weights if corrected else None}
    rest["hardest"] = hardest
    rest["positive_log_weights"] = torch.linspace(-2, 1, 7) if corrected else None
    expected, found = plain(*sides, copies, **rest), cross_entropy(*sides, copies, chunk=chunk, **rest)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(value * 1.7, sides) for value in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_large_logits_stay_finite():
    sides, copies, weights, _ = case()
    found = cross_entropy(*(side * 30 for side in sides), copies, weights=weights, temperature=0.02)
    assert torch.isfinite(found)
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(found, sides))


def test_no_negatives_and_no_positions():
    sides, _, weights, _ = case(negatives=0)
    found = cross_entropy(*sides, torch.full((7,), -1), weights=weights, temperature=1.0)
    assert found.item() == 0
    sides, copies, weights, _ = case(positions=0)
    found = cross_entropy(*sides, copies, weights=weights, temperature=1.0)
    found.backward()
    assert found.item() == 0
    assert torch.equal(sides[2].grad, torch.zeros_like(sides[2]))


def test_half_precision_inputs_are_computed_in_full(monkeypatch):
    sides, copies, weights, _ = case()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = [side.detach().bfloat16().requires_grad_() for side in sides]
        found = cross_entropy(*half, copies, weights=weights, temperature=0.3)
    assert found.dtype == torch.float32
    expected = plain(*(side.float() for side in half), copies, weights=weights, temperature=0.3)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("negatives", [0, 1, 12_101, 380_000, 17_500_000])
def test_logits_are_bounded(negatives):
    chunk = _chunk(torch.zeros(1), negatives)
    assert chunk >= 1
    assert chunk * negatives <= 16 * (1 << 23)
