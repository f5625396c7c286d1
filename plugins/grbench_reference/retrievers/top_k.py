"""Picks and orders the k best of scored candidates, in the same way on every device.

Shapes: B users, Q queries, P items, C columns, D width. Positions are rows of the vectors, 0..P-1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import pad

from grbench.types import TopK


def rank_positions(
    queries: Tensor, vectors: Tensor, positions: Tensor, k: int, *, added: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scores given positions of each query and sorts them: positions and scores [Q, k], best first.

    positions: [Q, C], C >= k, -1 = none, scored -inf; added: [Q, C], added to the inner products. Ties keep the order
    of the columns. Each inner product is summed on its own and not by a matrix product, so the score of a pair does not
    depend on the other pairs or on the device's matrix kernel: items with equal vectors get equal scores.
    """
    gathered = vectors.index_select(0, positions.clamp(min=0).flatten()).view(*positions.shape, vectors.shape[1])
    scores = gathered.mul_(queries[:, None, :]).sum(dim=2)
    scores = (scores if added is None else scores + added).masked_fill_(positions < 0, float("-inf"))
    if positions.shape[1] > k:
        columns = largest(scores, k)
        positions, scores = positions.gather(1, columns), scores.gather(1, columns)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return positions.gather(1, order), scores


def largest(scores: Tensor, k: int) -> Tensor:
    """[Q, k] int64: the columns of the k largest of scores [Q, C], in ascending order; ties go to the first column.

    `torch.topk` picks an arbitrary one of several values equal to the k-th, so rows with such a tie are done again.
    """
    if k >= scores.shape[1]:
        return torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    values, columns = scores.topk(k + 1, dim=1)
    columns = columns[:, :k].sort(dim=1).values
    tied_rows = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
    for rows in torch.split(tied_rows, 64):  # a few at a time, since this makes several copies of the scores
        some, threshold = scores[rows], values[rows, k - 1 : k]
        above, tied = some > threshold, some == threshold
        remaining = k - above.sum(dim=1, keepdim=True)
        chosen = above | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= remaining))
        columns[rows] = chosen.nonzero()[:, 1].view(-1, k)
    return columns


def padded_top_k(items: Tensor, scores: Tensor, k: int) -> TopK:
    """items, scores [B, c], c <= k, best first -> a TopK of width k, filled up with item 0 at score -inf."""
    missing = k - items.shape[1]
    return TopK(pad(items, (0, missing)), pad(scores, (0, missing), value=-torch.inf))


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Inside the context float32 products are exact: without autocast and TF32, which training may have switched on."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
