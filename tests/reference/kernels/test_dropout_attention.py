"""Attention in pieces gives what attention in one piece gives, with the same coins."""

from __future__ import annotations

import pytest
import torch

from grbench_reference.kernels import dropout_attention as attention_kernel
from grbench_reference.kernels.dropout_attention import dropout_attention
from grbench_reference.kernels.embedding import dropout_mask


@pytest.mark.parametrize("at_once", [1, 60, 1 << 19])
@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_are_those_of_whole_tensors(monkeypatch, at_once: int, share: float, masked: bool) -> None:
    monkeypatch.setattr(attention_kernel, "WEIGHTS_AT_ONCE", at_once)
    torch.manual_seed(0)
    inputs = [torch.randn(3, 2, 5, width, requires_grad=True) for width in (6, 6, 4)]  # keys may be wider
    upstream = torch.randn(3, 2, 5, 4)
    visible = torch.eye(5) + torch.rand(5, 5) > 0.6 if masked else None
    torch.manual_seed(1)
    pieces = dropout_attention(*inputs, share, visible)
    found = torch.autograd.grad(pieces, inputs, upstream)

    torch.manual_seed(1)
    kept, scale = dropout_mask((6, 5, 5), share)
    query, key, value = inputs
    hidden = torch.ones(5, 5).triu(1).bool() if visible is None else ~visible
    weights = (query @ key.transpose(2, 3) / 2).masked_fill(hidden, -torch.inf).softmax(-1)
    whole = (weights * kept.view(3, 2, 5, 5) * scale) @ value
    expected = torch.autograd.grad(whole, inputs, upstream)

    torch.testing.assert_close(pieces, whole)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_share_of_weights_is_dropped() -> None:
    torch.manual_seed(0)
    kept, scale = dropout_mask((200, 50, 50), 0.2)
    assert kept.float().mean().item() == pytest.approx(0.8, abs=0.005)
    assert scale == pytest.approx(1.25, abs=1e-4)
