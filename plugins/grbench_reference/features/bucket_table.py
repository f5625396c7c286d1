"""Bucketed features of events (time, popularity): one table, one row a bucket, an event's rows summed.

Shapes: B users, T history length, C columns of buckets, P tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from grbench_reference.features.parts import EmbeddingTable, on_device
from grbench_reference.kernels.embedding import sum_rows


class BucketTable(nn.Module):
    """sizes: [C], the number of buckets of each column. dropout: share of buckets replaced by their column's `hidden`
    row in training, as OnePiece's feature dropout does (dataset.py, rate .5 on the buckets of time and popularity).

    The hidden rows start at zero. Tokens that are no event get zero.
    """

    hidden: Tensor

    def __init__(self, sizes: Sequence[int], width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        hidden = np.cumsum([1, *(size + 1 for size in sizes)])  # row 0 is of no event
        on_device(self, "hidden", hidden[:-1])
        self.table = EmbeddingTable(int(hidden[-1]), width)
        self.table.divisible = False  # its weight is read as a whole, for sums of rows
        with torch.no_grad():
            self.table.weight[self.hidden] = 0

    def forward(self, buckets: Tensor, events: Tensor) -> Tensor:
        """buckets [B, T, C] int64; events [P] of the flattened [B * T], -1 for a token that is none -> [P, D]."""
        rows = buckets.flatten(0, 1)[events.clamp(min=0)] + self.hidden + 1
        if self.training and self.dropout:
            rows = torch.where(torch.rand(rows.shape, device=rows.device) < self.dropout, self.hidden, rows)
        rows = rows.masked_fill((events < 0).unsqueeze(1), 0)
        return sum_rows(self.table.weight, rows, padding=0)
