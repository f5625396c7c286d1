"""Attention with dropout for the CPU, causal or under a mask: a few rows at a time, so that their weights stay in the
processor's cache from one operation to the next. 55 ms forward and backward where whole tensors take 78 (512 rows x 101
x 32, 2 cores).

Shapes: G rows, H heads, L length, E width of a head; n rows at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from grbench_reference.kernels.embedding import dropout_mask

# mypy: disable-error-code="no-untyped-call"

WEIGHTS_AT_ONCE = 1 << 19  # 2 MiB of float32


def dropout_attention(query: Tensor, key: Tensor, value: Tensor, share: float, visible: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(E)) v below the diagonal, or where visible [L, L] is true, [G, H, L, E] each; `share` of the
    weights dropped. Each row of `visible` needs a true cell.

    Queries and keys may be wider than values; E is the values' width.
    """
    rows, heads, length, width = value.shape
    flat = (each.reshape(rows * heads, length, each.shape[3]) for each in (query, key, value))
    mixed: Tensor = _DroppedAttention.apply(*flat, share, visible)
    return mixed.view(rows, heads, length, width)


class _DroppedAttention(Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by place
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, share: float, visible: Tensor | None
    ) -> Tensor:
        rows, length, width = value.shape
        kept, scale = dropout_mask((rows, length, length), share)
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1) if visible is None else ~visible
        unseen = query.new_zeros(length, length).masked_fill_(hidden, -torch.inf)
        query = query * width**-0.5
        weights, dropped = query.new_empty(rows, length, length), query.new_empty(rows, length, length)
        mixed = torch.empty_like(value)
        for some, scores in _pieces(rows, length, query):
            torch.bmm(query[some], key[some].transpose(1, 2), out=scores).add_(unseen)
            torch.softmax(scores, -1, out=weights[some])
            dropped[some].copy_(kept[some].view(torch.uint8)).mul_(weights[some])  # bytes convert faster than flags
            torch.bmm(dropped[some], value[some], out=mixed[some])
        mixed *= scale
        ctx.save_for_backward(query, key, value, weights, dropped, mixed)
        ctx.scale = scale
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, dropped, mixed = ctx.saved_tensors
        rows, length, width = value.shape
        # sum over keys of weight x its gradient, which the softmax's gradient needs, without a pass over the weights.
        along = (gradient * mixed).sum(-1, keepdim=True).neg_()
        gradient = gradient * ctx.scale
        to_query, to_key, to_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for some, scores in _pieces(rows, length, query):
            torch.bmm(dropped[some].transpose(1, 2), gradient[some], out=to_value[some])
            torch.bmm(gradient[some], value[some].transpose(1, 2), out=scores)
            scores.mul_(dropped[some]).addcmul_(weights[some], along[some])
            torch.bmm(scores, key[some], out=to_query[some])
            torch.bmm(scores.transpose(1, 2), query[some], out=to_key[some])
        return to_query.mul_(width**-0.5), to_key, to_value, None, None


def _pieces(rows: int, length: int, like: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of rows, and the memory [n, L, L] that their scores share."""
    many = max(1, WEIGHTS_AT_ONCE // length**2)
    memory = like.new_empty(min(many, rows), length, length)
    bounds = [*range(0, rows, many), rows]
    for first, last in itertools.pairwise(bounds):
        yield slice(first, last), memory[: last - first]
