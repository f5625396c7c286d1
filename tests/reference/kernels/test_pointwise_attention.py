"""SiLU attention in pieces, with its own way back, equals the formula that torch differentiates."""

import itertools

import pytest
import torch
from torch.nn import functional

from grbench_reference.kernels import pointwise_attention as module
from grbench_reference.kernels.pointwise_attention import pointwise_attention

ROWS, HEADS, LENGTH, WIDTH, BUCKETS = 5, 2, 4, 3, 6


def sides(dtype=torch.float64):
    torch.manual_seed(0)
    shapes = {
        "query": (ROWS, HEADS, LENGTH, WIDTH),
        "key": (ROWS, HEADS, LENGTH, WIDTH),
        "value": (ROWS, HEADS, LENGTH, WIDTH),
        "position": (HEADS, LENGTH, LENGTH),
        "of_key": (ROWS, HEADS, LENGTH),
        "time": (BUCKETS, HEADS),
    }
    return {name: torch.randn(shape, dtype=dtype, requires_grad=True) for name, shape in shapes.items()}


def by_hand(query, key, value, *, position=0.0, of_key=None, time=None, buckets=None, mean=True):
    scores = query @ key.transpose(2, 3) / WIDTH**0.5 + position
    if of_key is not None:
        scores = scores + of_key[:, :, None, :]
    if time is not None:
        scores = scores + time[buckets.long()].permute(0, 3, 1, 2)
    weights = functional.silu(scores).tril()
    return (weights / torch.arange(1, LENGTH + 1)[:, None] if mean else weights) @ value


@pytest.mark.parametrize("pairs_at_once", [1, 2 * HEADS * LENGTH**2, 1 << 20])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("left_out", [*itertools.product([True, False], repeat=3)])
def test_values_and_gradients(left_out, mean, pairs_at_once, monkeypatch):
    monkeypatch.setitem(module.PAIRS_AT_ONCE, "cpu", pairs_at_once)
    inputs = sides()
    for name, gone in zip(("position", "of_key", "time"), left_out, strict=True):
        if gone:
            del inputs[name]
    buckets = torch.randint(BUCKETS, (ROWS, LENGTH, LENGTH)).to(torch.uint8)
    seed = torch.randn(ROWS, HEADS, LENGTH, WIDTH, dtype=torch.float64)
    results = []
    for attend in (pointwise_attention, by_hand):
        more = {"buckets": buckets} if "time" in inputs else {}
        attended = attend(**inputs, **more, mean=mean)
        results.append([attended, *torch.autograd.grad((attended * seed).sum(), list(inputs.values()))])
    for one, other in zip(*results, strict=True):  # what rows share is summed in float32
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_one_pair_worked_out_by_hand():
    """Two tokens, one head, width 1: the second sees scores 2 x 1 and 2 x 3, and half of each value counts."""
    query, key, value = (torch.tensor(values).view(1, 1, 2, 1) for values in ([1.0, 2.0], [1.0, 3.0], [10.0, 20.0]))
    silu = functional.silu(torch.tensor([1.0, 2.0, 6.0]))
    expected = torch.stack([silu[0] * 10, (silu[1] * 10 + silu[2] * 20) / 2])
    torch.testing.assert_close(pointwise_attention(query, key, value).flatten(), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_a_cpu_gives():
    buckets = torch.randint(BUCKETS, (ROWS, LENGTH, LENGTH)).to(torch.uint8)
    results = []
    for device in ("cpu", "cuda"):
        inputs = {name: side.detach().to(device).requires_grad_() for name, side in sides().items()}
        attended = pointwise_attention(**inputs, buckets=buckets.to(device))
        results.append([attended.cpu(), *(g.cpu() for g in torch.autograd.grad(attended.sum(), list(inputs.values())))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_halves_keep_sums_over_rows_whole():
    """In bfloat16 the gradient of what all rows share is summed in float32."""
    inputs = {name: side.detach().bfloat16().requires_grad_() for name, side in sides().items()}
    inputs["time"] = inputs["time"].detach().float().requires_grad_()
    buckets = torch.zeros(ROWS, LENGTH, LENGTH, dtype=torch.uint8)
    pointwise_attention(**inputs, buckets=buckets).float().sum().backward()
    assert inputs["time"].grad.dtype == torch.float32
    assert inputs["query"].grad.dtype == torch.bfloat16
    assert all(side.grad.isfinite().all() for side in inputs.values())
