"""The scan in chunks against the recurrence step by step, by hand, and at lengths and decays that could overflow."""

import pytest
import torch

from grbench_reference.kernels.decayed_scan import decayed_scan


def step_by_step(query, keys, values, log_decay):
    """The recurrence as it is written, a token at a time."""
    rows, heads, length, writes, width = keys.shape
    state = torch.zeros(rows, heads, width, values.shape[4], dtype=query.dtype)
    read = []
    for token in range(length):
        state = state * log_decay[:, :, token].exp()[..., None, None]
        for write in range(writes):
            state = state + keys[:, :, token, write].unsqueeze(3) * values[:, :, token, write].unsqueeze(2)
        read.append((query[:, :, token].unsqueeze(2) @ state).squeeze(2))
    return torch.stack(read, 2)


def inputs(length, writes, seed=0):
    torch.manual_seed(seed)
    shapes = ((2, 3, length, 4), (2, 3, length, writes, 4), (2, 3, length, writes, 5), (2, 3, length))
    query, keys, values, decay = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    return [each.requires_grad_() for each in (query, keys, values, -decay.exp())]


def test_by_hand():
    """Width 1, decay 1/2: states 2, 2/2 + 3 - 1 = 3, 3/2 + 4 = 5.5; the second token writes twice."""
    query = torch.tensor([1.0, 10, 100]).view(1, 1, 3, 1)
    keys = torch.tensor([[1.0, 0], [1, -1], [2, 0]]).view(1, 1, 3, 2, 1)
    values = torch.tensor([[2.0, 7], [3, 1], [2, 7]]).view(1, 1, 3, 2, 1)
    log_decay = torch.full((1, 1, 3), 0.5).log()
    for chunk in (1, 2, 3, 8):
        read = decayed_scan(query, keys, values, log_decay, chunk=chunk).flatten()
        torch.testing.assert_close(read, torch.tensor([2.0, 30, 550]))


@pytest.mark.parametrize(("length", "writes", "chunk"), [(1, 1, 4), (4, 2, 4), (11, 1, 4), (11, 3, 4), (11, 2, 32)])
def test_equals_the_recurrence_with_its_gradients(length, writes, chunk):
    one, other = inputs(length, writes), inputs(length, writes)
    expected, read = step_by_step(*one), decayed_scan(*other, chunk=chunk)
    torch.testing.assert_close(read, expected)
    torch.manual_seed(1)
    into = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(read, other, into), torch.autograd.grad(expected, one, into), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("decay", [0.0, -1e-4, -200.0, -1e30])
def test_no_decay_overflows(decay):
    query, keys, values, log_decay = (each.detach().float() for each in inputs(600, 1))
    log_decay = torch.full_like(log_decay, decay).requires_grad_()
    read = decayed_scan(query, keys, values, log_decay)
    read.sum().backward()
    assert read.isfinite().all()
    assert log_decay.grad.isfinite().all()
    if decay < -100:  # all but the token's own write is forgotten
        own = (query.unsqueeze(3) * keys).sum(4) * values.squeeze(3)
        torch.testing.assert_close(read, own)
