"""The candidates' codes as one sorted table: a trie without nodes.

Sorted by code, the candidates below a prefix lie next to each other, and so do the prefixes of a level below one of
the level before. So a prefix is a number, its children a range, and a range is found by one search for its two ends,
made once when the table is. A search never looks at anything but ranges: its work follows the beams and their children
and not the candidates, and no code comes out that no candidate has.

Shapes: P candidates, L levels, n_l prefixes of l + 1 codes, B users, W beams, C children of a user's beams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from grbench.types import Codes


class Prefixes(NamedTuple):
    """A level's prefixes, numbered in the order of their codes. codes: [n_l] int64, the last code of each; starts:
    [n_(l-1) + 1], where the children of each prefix of the level before start among them, the root being the only one
    before the first level; of_row: [P], each row's."""

    codes: Tensor
    starts: Tensor
    of_row: Tensor


def prefixes(table: Tensor, sizes: Sequence[int]) -> Iterator[Prefixes]:
    """table [P, L] -> level by level."""
    of_row, count = table.new_zeros(len(table)), 1
    for level, size in enumerate(sizes):
        keys, of_row = torch.unique(of_row * size + table[:, level], return_inverse=True)
        yield Prefixes(keys % size, starts_of(keys // size, count), of_row)
        count = len(keys)


class PrefixTable:
    """Prefixes of each level, numbered 0 .. n_l - 1 in the order of their codes; a prefix of L codes is a leaf.

    codes: a level's [n_l] int64, the last code of each prefix. `positions`: [P], the candidates' places in the pool,
    sorted by code, those of one code in the order of the pool.
    """

    def __init__(self, candidates: Tensor, codes: Codes) -> None:
        """candidates: [P] int64, whose device the table is kept on."""
        table = codes.table[candidates.to(codes.table.device)].to(candidates.device)
        prefix = torch.zeros_like(candidates)
        self.codes: list[Tensor] = []
        self._starts: list[Tensor] = []  # of each prefix's children among the next level's; the first are the root's
        for each in prefixes(table, codes.sizes):
            self._starts.append(each.starts)
            self.codes.append(each.codes)
            prefix = each.of_row
        self.positions = prefix.argsort(stable=True)
        self._items = starts_of(prefix[self.positions], self.leaves)

    @property
    def leaves(self) -> int:
        """How many different codes the candidates have."""
        return len(self.codes[-1])

    @property
    def bytes(self) -> int:
        """Memory that the table takes."""
        columns = [*self.codes, *self._starts, self._items, self.positions]
        return sum(column.numel() * column.element_size() for column in columns)

    def children(self, level: int, prefixes: Tensor) -> tuple[Tensor, Tensor]:
        """prefixes [B, W] of the level before, -1 = none -> (the beam [B, C] that each child continues, its number
        among the prefixes of `level`, -1 behind the last). C is the most that a user's beams have together."""
        return spread(self._starts[level], prefixes)

    def items(self, leaves: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """leaves [B, W], -1 = none -> (the beam [B, most] that each item belongs to, its place in the pool, -1 behind
        the last): all items of the first leaf, then of the second, cut off after `most`."""
        beams, places = spread(self._items, leaves, most)
        return beams, torch.where(places < 0, -1, self.positions[places.clamp(min=0)])


def starts_of(owners: Tensor, count: int) -> Tensor:
    """owners [n] ascending -> [count + 1]: owner i has owners[starts[i]:starts[i + 1]]."""
    return torch.searchsorted(owners, torch.arange(count + 1, device=owners.device))


def spread(starts: Tensor, owners: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """The ranges of owners [B, W] laid out one behind the other: (place among the owners, member), [B, C] each."""
    first = starts[owners.clamp(min=0)]
    counts = torch.where(owners >= 0, starts[owners.clamp(min=0) + 1] - first, 0)
    ends = counts.cumsum(1)
    length = int(ends[:, -1].max()) if most is None and len(owners) else most or 0
    place = torch.arange(length, device=owners.device).expand(len(owners), -1).contiguous()
    owner = torch.searchsorted(ends, place, right=True).clamp(max=owners.shape[1] - 1)
    member = (first - (ends - counts)).gather(1, owner) + place
    return owner, member.masked_fill(place >= ends[:, -1:], -1)
