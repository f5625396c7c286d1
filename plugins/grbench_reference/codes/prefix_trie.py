"""A prefix trie over the candidates' codes, stored as sorted arrays.

The candidates are sorted by their codes. The candidates below a prefix are then contiguous, and so are its child
prefixes among the prefixes of the next level. Prefixes are numbered in that order, so the children of a prefix are a
range of numbers, found once, when the trie is built. Beam search reads ranges only: its cost depends on the number of
beams and children, not on the number of candidates, and it generates no code that no candidate has.

Shapes: P candidates, L levels, n_l prefixes of length l + 1, B users, W beams, C children of a user's beams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from grbench.types import Codes


class TrieLevel(NamedTuple):
    """The prefixes of one length, numbered in the order of their codes.

    codes: [n_l] int64, the last code of each prefix; starts: [n_(l-1) + 1], the children of prefix i of the level
    before are starts[i] .. starts[i + 1] - 1 (level 0 has the root as its only parent); of_row: [P], the prefix of each
    row of the table.
    """

    codes: Tensor
    starts: Tensor
    of_row: Tensor


def trie_levels(table: Tensor, sizes: Sequence[int]) -> Iterator[TrieLevel]:
    """table [P, L] codes -> the levels of their trie, first to last."""
    of_row, count = table.new_zeros(len(table)), 1
    for level, size in enumerate(sizes):
        keys, of_row = torch.unique(of_row * size + table[:, level], return_inverse=True)
        yield TrieLevel(keys % size, starts_of(keys // size, count), of_row)
        count = len(keys)


class PrefixTrie:
    """The prefixes of the candidates' codes, by level. A prefix of L codes is a leaf: all candidates with that code.

    candidates: [P] int64 items, in the order of the pool; codes: for each level [n_l] int64, the last code of each
    prefix; positions: [P], the candidates' indices in the pool, sorted by code, candidates of the same code in the
    order of the pool.
    """

    def __init__(self, candidates: Tensor, codes: Codes) -> None:
        """candidates: [P] int64 items; the trie is stored on their device."""
        table = codes.table[candidates.to(codes.table.device)].to(candidates.device)
        self.candidates = candidates
        leaf_of = torch.zeros_like(candidates)
        self.codes: list[Tensor] = []
        self._starts: list[Tensor] = []
        for level in trie_levels(table, codes.sizes):
            self._starts.append(level.starts)
            self.codes.append(level.codes)
            leaf_of = level.of_row
        self.positions = leaf_of.argsort(stable=True)
        self._item_starts = starts_of(leaf_of[self.positions], self.num_leaves)

    @property
    def levels(self) -> int:
        """L, the length of codes."""
        return len(self.codes)

    @property
    def num_leaves(self) -> int:
        """How many different codes the candidates have."""
        return len(self.codes[-1])

    @property
    def bytes(self) -> int:
        """Memory of the trie, in bytes."""
        arrays = [*self.codes, *self._starts, self._item_starts, self.positions]
        return sum(array.numel() * array.element_size() for array in arrays)

    def children(self, level: int, prefixes: Tensor) -> tuple[Tensor, Tensor]:
        """The children at `level` of prefixes [B, W] of the level before (-1 = none).

        Returns (the beam 0..W-1 that each child extends [B, C], the child's number [B, C], padded with -1 at the end).
        C is the largest number of children that a user's beams have together.
        """
        return expand_ranges(self._starts[level], prefixes)

    def items(self, leaves: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """The candidates of leaves [B, W] (-1 = none): all of the first leaf, then of the second, at most `limit`.

        Returns (the beam 0..W-1 that each candidate belongs to [B, limit], its index in the pool [B, limit], padded
        with -1 at the end).
        """
        beams, rows = expand_ranges(self._item_starts, leaves, limit)
        return beams, torch.where(rows < 0, -1, self.positions[rows.clamp(min=0)])

    def first_items(self, leaves: Tensor) -> Tensor:
        """leaves, of any shape, -1 = none -> the first candidate of each, 0 = none."""
        first = self.candidates[self.positions[self._item_starts[leaves.clamp(min=0)]]]
        return first.masked_fill(leaves < 0, 0)


def starts_of(owners: Tensor, count: int) -> Tensor:
    """owners [n] ascending, each below `count` -> [count + 1]: owner i has the rows starts[i] .. starts[i + 1] - 1."""
    return torch.searchsorted(owners, torch.arange(count + 1, device=owners.device))


def expand_ranges(starts: Tensor, owners: Tensor, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Concatenates the ranges of owners [B, W] (-1 = none) row by row.

    Returns (column of the owner, member of its range), [B, C] each, member -1 behind the end of a row's ranges. C is
    `limit`, or the length of the longest row.
    """
    first = starts[owners.clamp(min=0)]
    counts = torch.where(owners >= 0, starts[owners.clamp(min=0) + 1] - first, 0)
    ends = counts.cumsum(1)
    length = int(ends[:, -1].max()) if limit is None and len(owners) else limit or 0
    offset = torch.arange(length, device=owners.device).expand(len(owners), -1).contiguous()
    column = torch.searchsorted(ends, offset, right=True).clamp(max=owners.shape[1] - 1)
    member = (first - (ends - counts)).gather(1, column) + offset
    return column, member.masked_fill(offset >= ends[:, -1:], -1)
