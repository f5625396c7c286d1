"""Embeddings of semantic-ID codes, items as the sum of their codes' embeddings, and which codes items use.

Shapes: M items, N items, L levels, K_l codes of level l, n codes that items have at a level, D width.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from grbench.types import Codes
from grbench_reference.codes.random_k import draw, neighbours_of
from grbench_reference.features.fusion import Tower
from grbench_reference.features.parts import TABLE_SPREAD
from grbench_reference.kernels.embedding import distinct, gather_rows, sum_rows
from grbench_reference.kernels.rms_norm import RMSNorm


class CodeTable(nn.Module):
    """The codes of every item, and one embedding a code, those of all levels in one table [K_1 + .. + K_L, D].

    trained: [N+1] bool. Codes that no trained item has start at zero, so that a cold item adds no noise.
    """

    codes: Tensor
    starts: Tensor

    def __init__(self, codes: Codes, width: int, *, trained: np.ndarray) -> None:
        super().__init__()
        self.sizes = codes.sizes
        self.scale: float = width**0.5
        self.first = [0, *accumulate(codes.sizes)][:-1]
        self.register_buffer("codes", codes.table.int(), persistent=False)
        self.register_buffer("starts", torch.tensor(self.first), persistent=False)
        self.weight = nn.Parameter(torch.zeros(sum(codes.sizes), width))
        seen = torch.unique(codes.table[torch.from_numpy(trained)] + self.starts)
        with torch.no_grad():
            self.weight[seen] = torch.empty(len(seen), width).normal_(std=TABLE_SPREAD)
        neighbours = neighbours_of(codes)
        for level, table in enumerate(neighbours):
            self.register_buffer(f"neighbours_{level}", table, persistent=False)
        self.regularised = len(neighbours)

    @property
    def levels(self) -> int:
        """L"""
        return len(self.sizes)

    def codes_of(self, items: Tensor) -> Tensor:
        """items [...] -> [..., L] int64."""
        codes: Tensor = self.codes[items].long()
        return codes

    def rows(self, items: Tensor) -> Tensor:
        """items [...] -> [..., L] rows of the table; in training with codes drawn by the tokenizer's `random_k`."""
        codes = self.codes_of(items)
        if self.training and self.regularised:
            codes = draw(codes, [getattr(self, f"neighbours_{level}") for level in range(self.regularised)])
        rows: Tensor = codes + self.starts
        return rows

    def vectors(self, rows: Tensor) -> Tensor:
        """rows [...] of the table -> [..., D], times the square root of D, as blocks get them."""
        return gather_rows(self.weight, rows) * self.scale

    def sums(self, items: Tensor) -> Tensor:
        """items [M] -> [M, D], the sum of each item's code embeddings."""
        return sum_rows(self.weight, self.rows(items)) * self.scale

    def embed(self, level: int, codes: Tensor) -> Tensor:
        """codes [...] of one level -> [..., D]."""
        return self.vectors(codes + self.first[level])

    def path_sums(self, codes: Tensor) -> Tensor:
        """codes [..., l] of the first l levels -> [..., D], the sum of their embeddings."""
        rows = codes + self.starts[: codes.shape[-1]]
        return (sum_rows(self.weight, rows.flatten(0, -2)) * self.scale).view(*codes.shape[:-1], -1)

    def of_level(self, level: int) -> Tensor:
        """[K_l, D], unscaled: the output embeddings where `tie_codes` is on."""
        return self.weight[self.first[level] : self.first[level] + self.sizes[level]]


class SummedCodes(nn.Module):
    """An item's vector: the sum of its code embeddings through an MLP, plus its features' vector; item 0 is zero.

    features: the tower of ids, fields and content embeddings; None = codes alone.
    """

    def __init__(self, codes: CodeTable, width: int, features: Tower | None) -> None:
        super().__init__()
        self.codes, self.features = codes, features
        self.mlp = nn.Sequential(RMSNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, items: Tensor) -> Tensor:
        """items [M] -> [M, D]."""
        summed = self.codes.sums(items)
        vectors: Tensor = summed + self.mlp(summed)
        if self.features is not None:
            vectors = vectors + self.features(items)
        return vectors * (items != 0).to(vectors.dtype).unsqueeze(-1)

    def each_once(self, *groups: Tensor) -> tuple[Tensor, ...]:
        """The vectors of several tensors of items, each distinct item embedded once."""
        items, where = distinct(torch.cat([group.reshape(-1) for group in groups]), len(self.codes.codes))
        places = torch.split(where, [group.numel() for group in groups])
        vectors = self(items)
        return tuple(gather_rows(vectors, some.view(group.shape)) for some, group in zip(places, groups, strict=True))


class UsedCodes(nn.Module):
    """The codes of one level that at least one item has: logits are computed for these only, all others are -inf.

    Where they are consecutive, as those of `ids` are behind code 0, their vectors are a slice and not a copy.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, size: int) -> None:
        """codes: [N], each item's code of the level; size: K_l."""
        super().__init__()
        used = torch.unique(codes)
        self.size = size
        self.first, self.last = (int(used[0]), int(used[-1])) if len(used) else (0, -1)
        self.dense = self.last - self.first + 1 == len(used)
        self.register_buffer("codes", used, persistent=False)

    def select(self, vectors: Tensor) -> Tensor:
        """vectors [K_l, D] of all codes -> [n, D], of the used ones."""
        return vectors[self.first : self.last + 1] if self.dense else vectors[self.codes]

    def scatter(self, logits: Tensor) -> Tensor:
        """logits [P, n] of the used codes -> [P, K_l], -inf for a code that no item has."""
        if logits.shape[1] == self.size:
            return logits
        if self.dense:
            return nn.functional.pad(logits, (self.first, self.size - 1 - self.last), value=-torch.inf)
        return logits.new_full((len(logits), self.size), -torch.inf).index_copy(1, self.codes, logits)
