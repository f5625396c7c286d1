"""Rotary positions (arXiv 2104.09864) for all tokens of a layout in one operation, forward and backward.

Shapes: P tokens, H heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# mypy: disable-error-code="no-untyped-call"


def _turn(qkv: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    turned = torch.empty_like(qkv)
    turned[:, 2] = qkv[:, 2]
    first, second = qkv[:, :2].chunk(2, dim=-1)
    to_first, to_second = turned[:, :2].chunk(2, dim=-1)
    torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-direction)
    torch.mul(second, cos, out=to_second).addcmul_(first, sin, value=direction)
    return turned


class _Turned(Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(qkv, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(gradient, cos, sin, -1), None, None


def rotate_qkv(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """qkv [P, 3, H, E], cos, sin [P, E / 2] of each token's place -> [P, 3, H, E]: queries and keys turned as
    `layers.transformer.Rotary` does, values unchanged."""
    cos, sin = (side[:, None, None].to(qkv.dtype) for side in (cos, sin))
    result: Tensor = _Turned.apply(qkv, cos, sin)
    return result
