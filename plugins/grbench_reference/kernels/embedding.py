"""Embedding look-ups, normalisation and dropout, several times faster than torch's on a CPU; a GPU uses torch's own,
against which each is tested. Times: one core of a 2-core machine, 52,000 items x 13 fields, 96,000 rows x 32.

Shapes: M entities, C columns, R rows of a table, K distinct rows, W width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

# mypy: disable-error-code="no-untyped-call"


def _rows_to_places(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The places at which each row of a table is used: (places sorted by row, each row's first among them [count])."""
    places = torch.sort(rows.int(), stable=True).indices
    starts = torch.zeros(count, dtype=torch.int64, device=rows.device)
    torch.cumsum(torch.bincount(rows, minlength=count)[:-1], 0, out=starts[1:])
    return places, starts


class _SumRows(Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor | None, padding: int | None) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.count, ctx.padding = len(table), padding
        return functional.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows, weights = ctx.saved_tensors
        places, starts = _rows_to_places(rows.reshape(-1), ctx.count)
        weights = None if weights is None else weights.reshape(-1)[places]
        # Each row's gradient is a bag over the places that use it: 27 ms, where torch's scatter takes 148 ms.
        bags = functional.embedding_bag(
            places // rows.shape[1], gradient.contiguous(), starts, mode="sum", per_sample_weights=weights
        )
        if ctx.padding is not None:
            bags[ctx.padding] = 0
        return bags, None, None, None


def sum_rows(table: Tensor, rows: Tensor, weights: Tensor | None = None, *, padding: int | None = None) -> Tensor:
    """table [R, W], rows [M, C] int64, weights [M, C] -> [M, W], each entity's rows added up.

    Row `padding`, which has to be zero, gets no gradient.
    """
    if table.is_cuda:
        return functional.embedding_bag(rows, table, mode="sum", per_sample_weights=weights, padding_idx=padding)
    summed: Tensor = _SumRows.apply(table, rows, weights, padding)
    return summed


def gather_rows(table: Tensor, rows: Tensor, *, padding: int | None = None) -> Tensor:
    """table [R, W], rows [...] int64 -> [..., W]. Row `padding` gets no gradient."""
    if table.is_cuda or not (torch.is_grad_enabled() and table.requires_grad):
        return functional.embedding(rows, table, padding_idx=padding)
    gathered: Tensor = _SumRows.apply(table, rows.reshape(-1, 1), None, padding)
    return gathered.view(*rows.shape, table.shape[1])


class _DistinctRows(Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, sparse: bool, padding: int | None) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape, ctx.sparse, ctx.padding = table.shape, sparse, padding
        return table.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (rows,) = ctx.saved_tensors
        if ctx.padding is not None:
            gradient = gradient * (rows != ctx.padding).to(gradient.dtype).unsqueeze(-1)
        if ctx.sparse:
            return (
                torch.sparse_coo_tensor(rows[None], gradient, ctx.shape, is_coalesced=True, check_invariants=False),
                None,
                None,
                None,
            )
        return gradient.new_zeros(ctx.shape).index_copy_(0, rows, gradient), None, None, None


def distinct_rows(table: Tensor, rows: Tensor, *, sparse: bool = False, padding: int | None = None) -> Tensor:
    """table [R, W], rows [K] int64, ascending, each once -> [K, W]. Row `padding` gets no gradient.

    The backward pass need not sum anything, and a sparse gradient is coalesced.
    """
    gathered: Tensor = _DistinctRows.apply(table, rows, sparse, padding)
    return gathered


def distinct(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The distinct values of `rows`, ascending, and where each of `rows` is among them; all are below `count`.

    A map of `count` flags takes 10 ms where sorting 670,000 values takes 40; but for 100,000 values below 5 million it
    takes 86, and sorting these 2. On a GPU the shape of the result makes the host wait, once.
    """
    if count > 2 * rows.numel():
        values, where = torch.unique(rows, return_inverse=True)
        return values, where
    flags = torch.zeros(count, dtype=torch.bool, device=rows.device)
    flags[rows] = True
    return flags.nonzero().squeeze(1), (flags.cumsum(0) - 1)[rows]


class _Unit(Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        inverse = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_(min=1e-12).reciprocal_()
        units: Tensor = vectors * inverse
        ctx.save_for_backward(units, inverse)
        return units

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        units, inverse = ctx.saved_tensors
        along = (gradient * units).sum(-1, keepdim=True)
        return torch.addcmul(gradient, units, along, value=-1).mul_(inverse)


def unit(vectors: Tensor) -> Tensor:
    """vectors [..., W] scaled to length 1, as torch's normalize in half its passes; zero stays zero."""
    units: Tensor = _Unit.apply(vectors.float())
    return units


def dropout_mask(shape: tuple[int, ...], share: float) -> tuple[Tensor, float]:
    """-> (mask [shape] bool on the CPU, false for `share` of its elements; the factor that scales the others up).

    Each element draws 16 random bits, so that `share` is exact to 1 / 65,536: 16 ms for 5 million elements, where
    torch's dropout draws a double each in 73 ms.
    """
    count, threshold = math.prod(shape), round(share * 65536)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    coins = words.view(torch.int16)[:count].view(shape)
    return coins >= threshold - 32768, 65536 / max(65536 - threshold, 1)


def dropout(values: Tensor, share: float, *, training: bool) -> Tensor:
    """`values` with `share` of them zeroed and the rest scaled up."""
    if not training or share == 0:
        return values
    if values.is_cuda:
        return functional.dropout(values, share)
    kept, scale = dropout_mask(tuple(values.shape), share)
    return values * kept.view(torch.uint8).to(values.dtype).mul_(scale)  # bytes convert twice as fast as flags


class Dropout(nn.Module):
    """See `dropout`."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        return dropout(values, self.share, training=self.training)
