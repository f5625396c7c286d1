"""Root mean square normalisation (arXiv 1910.07467) in a few passes; on a CPU torch composes it of a dozen operations.

Shapes: P rows, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# mypy: disable-error-code="no-untyped-call"


class _RMSNormFunction(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = torch.linalg.vector_norm(values, dim=-1, keepdim=True).square_()
        inverse = inverse.div_(values.shape[-1]).add_(eps).rsqrt_()
        normed = values * inverse
        ctx.save_for_backward(normed, inverse, weight)
        scaled: Tensor = normed * weight
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, weight = ctx.saved_tensors
        shares = (gradient * normed).reshape(-1, normed.shape[-1])
        along = (shares @ weight).view_as(inverse).div_(normed.shape[-1])
        to_values = torch.addcmul(gradient * weight, normed, along, value=-1).mul_(inverse)
        return to_values, shares.sum(0), None


class RMSNorm(nn.RMSNorm):
    """As torch's over the last dimension; on the CPU, in float32, with its gradient written out."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, values: Tensor) -> Tensor:
        """values [..., D] -> [..., D]."""
        if values.is_cuda or values.dtype != torch.float32:
            return super().forward(values)
        normed: Tensor = _RMSNormFunction.apply(values, self.weight, self.eps)
        return normed
