"""HSTU's pointwise attention (arXiv 2402.17152): SiLU of each pair's score in place of a softmax over keys.

Torch has no kernel for it. Scores are computed a few rows at a time, and again in the backward pass, so that memory is
bounded by PAIRS_AT_ONCE and not by batch and length.

Shapes: G rows padded to length L, H heads, E width of a head, K time buckets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

# mypy: disable-error-code="no-untyped-call"

PAIRS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Scores [g, H, L, L] that exist at a time: few enough for a core's cache, many enough to keep a GPU busy."""


def pointwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    position: Tensor | None = None,
    of_key: Tensor | None = None,
    time: Tensor | None = None,
    buckets: Tensor | None = None,
    mean: bool = True,
) -> Tensor:
    """SiLU(q k' / sqrt(E) + bias) v / n below the diagonal, [G, H, L, E] each -> [G, H, L, E].

    n is the number of tokens that a query sees, or 1 where `mean` is off. The bias of a pair is position [H, L, L] +
    of_key [G, H, L] of its key + the row of time [K, H] that its bucket names, [G, L, L] of any integers; each may be
    left out.
    """
    attended: Tensor = _PointwiseAttention.apply(query, key, value, position, of_key, time, buckets, mean)
    return attended


def pieces(values: Tensor, *, pairs: int) -> Iterator[slice]:
    """Slices of the rows of values [G, ...], so that a slice's rows, with `pairs` scores each, stay in the bound."""
    step = max(1, PAIRS_AT_ONCE["cuda" if values.is_cuda else "cpu"] // pairs)
    return (slice(first, first + step) for first in range(0, len(values), step))


def _shares(length: int, like: Tensor, *, mean: bool) -> Tensor:
    """[L, L]: 1 / n for each key that a query sees, or 1 without `mean`; 0 for those ahead."""
    ones = torch.ones(length, length, dtype=torch.float32, device=like.device).tril()
    return (ones / ones.sum(1, keepdim=True) if mean else ones).to(like.dtype)


def _scores(
    query: Tensor,
    key: Tensor,
    *,
    position: Tensor | None,
    of_key: Tensor | None,
    time: Tensor | None,
    index: Tensor | None,
) -> Tensor:
    """query, scaled, and key [g, H, L, E] -> [g, H, L, L]."""
    scores = query @ key.transpose(2, 3)
    if position is not None:
        scores += position
    if of_key is not None:
        scores += of_key.unsqueeze(2)
    if time is not None and index is not None:
        table = time.T[None, :, None].to(scores.dtype).expand(*scores.shape[:3], -1)
        scores += table.gather(3, index)
    return scores


def _index(buckets: Tensor | None, heads: int) -> Tensor | None:
    """[g, L, L] -> [g, H, L, L] int64, one copy for all heads."""
    return None if buckets is None else buckets.long().unsqueeze(1).expand(-1, heads, -1, -1)


def _some(values: Tensor | None, rows: slice) -> Tensor | None:
    return None if values is None else values[rows]


class _PointwiseAttention(Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch calls it so
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        position: Tensor | None,
        of_key: Tensor | None,
        time: Tensor | None,
        buckets: Tensor | None,
        mean: bool,
    ) -> Tensor:
        ctx.mean = mean
        ctx.save_for_backward(query, key, value, position, of_key, time, buckets)
        heads, length = query.shape[1:3]
        shares, scale = _shares(length, query, mean=mean), query.shape[3] ** -0.5
        attended = torch.empty(value.shape, dtype=value.dtype, device=value.device)
        for rows in pieces(query, pairs=heads * length * length):
            index = _index(_some(buckets, rows), heads)
            scores = _scores(
                query[rows] * scale, key[rows], position=position, of_key=_some(of_key, rows), time=time, index=index
            )
            attended[rows] = functional.silu(scores, inplace=True).mul_(shares) @ value[rows]
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, position, of_key, time, buckets = ctx.saved_tensors
        heads, length = query.shape[1:3]
        shares, scale = _shares(length, query, mean=ctx.mean), query.shape[3] ** -0.5
        sides = [torch.empty(side.shape, dtype=side.dtype, device=side.device) for side in (query, key, value)]
        # Sums over rows are float32, whatever the scores are.
        to_position = None if position is None else torch.zeros_like(position, dtype=torch.float32)
        to_key = None if of_key is None else torch.empty_like(of_key)
        to_time = None if time is None else torch.zeros_like(time, dtype=torch.float32)
        for rows in pieces(query, pairs=heads * length * length):
            index = _index(_some(buckets, rows), heads)
            scaled = query[rows] * scale
            scores = _scores(scaled, key[rows], position=position, of_key=_some(of_key, rows), time=time, index=index)
            sides[2][rows] = (functional.silu(scores) * shares).transpose(2, 3) @ gradient[rows]
            weighed = (gradient[rows] @ value[rows].transpose(2, 3)).mul_(shares)
            to_scores = torch.ops.aten.silu_backward(weighed, scores)
            sides[0][rows] = (to_scores @ key[rows]) * scale
            sides[1][rows] = to_scores.transpose(2, 3) @ scaled
            if to_position is not None:
                to_position += to_scores.sum(0, dtype=torch.float32)
            if to_key is not None:
                to_key[rows] = to_scores.sum(2)
            if to_time is not None and index is not None:
                # Row by row first: on a GPU a few buckets for all pairs would make every thread wait for every other.
                per_row = to_time.new_zeros(*to_scores.shape[:3], len(to_time))
                to_time += per_row.scatter_add_(3, index, to_scores.float()).sum((0, 2)).T
        shared = [
            None if sums is None else sums.to(like.dtype)
            for sums, like in ((to_position, position), (to_key, of_key), (to_time, time))
        ]
        return *sides, *shared, None, None
