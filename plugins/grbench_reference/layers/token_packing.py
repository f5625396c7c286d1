"""How the tokens of a batch of histories are laid out in memory: packed, or as a grid.

Batches come left-padded; encoders read them left-aligned, so that a causal mask alone hides the padding behind every
token: no key mask, no row without a visible key (which gives NaN in some kernels), positions that count from the first
token, and a user token that stays first at any length.

Shapes: B users, T history length, L = T + 1 with a user token, else T; P tokens; D width.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from grbench.types import Batch

CUTS = (0.0, 0.5, 0.75, 0.94, 1.0)  # shares of the rows, by length, that are padded to one length together
WORTH_PACKING = 0.7  # pack where the tokens fill less of the grid than this


@dataclass(frozen=True)
class Group:
    """Rows of similar length, padded to one length: tokens first:last fill the cells [n] of a grid of rows x length.

    cells: [n] places in the flattened grid; None where every cell holds a token.
    visible: [length, length] bool, which of its row's tokens each token attends to; None = those up to itself.
    places: [length] int64, for rotary positions; None = the token's column.
    """

    first: int
    last: int
    rows: int
    length: int
    cells: Tensor | None
    visible: Tensor | None = None
    places: Tensor | None = None

    @classmethod
    def whole(cls, rows: int, length: int, *, visible: Tensor | None = None, places: Tensor | None = None) -> Group:
        """All tokens there are: rows of one length, without padding."""
        return cls(0, rows * length, rows, length, None, visible, places)

    def grid(self, tokens: Tensor) -> Tensor:
        """tokens [P, ...] -> [rows, length, ...], zero where a cell holds no token."""
        tokens = tokens[self.first : self.last]
        if self.cells is not None:
            empty = tokens.new_zeros(self.rows * self.length, *tokens.shape[1:])
            tokens = empty.index_copy(0, self.cells, tokens)
        return tokens.view(self.rows, self.length, *tokens.shape[1:])

    def tokens(self, grid: Tensor) -> Tensor:
        """grid [rows, length, ...] -> [last - first, ...]."""
        flat = grid.reshape(self.rows * self.length, *grid.shape[2:])
        return flat if self.cells is None else flat[self.cells]


class Grouped(Protocol):
    """What attention reads of a `Layout`: the tokens as grids."""

    @property
    def groups(self) -> tuple[Group, ...]: ...


@dataclass(frozen=True)
class Grids:
    """Tokens that are no batch's own, such as summaries of a history among its events, as grids."""

    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Layout:
    """The P tokens of a batch, and where each belongs. user_token: whether each row's first token is its user's.

    row, place: [P], the token's row of the batch and its place in it, 0 = the row's first token.
    events: [P], the token's event in the flattened [B * T] columns of the batch; -1 for a user token or padding.
    first, last: [B], each row's oldest and newest token; last is -1 where the row has none.
    groups: the tokens as grids, for attention. shape: (B, T).
    """

    row: Tensor
    place: Tensor
    events: Tensor
    first: Tensor
    last: Tensor
    groups: tuple[Group, ...]
    shape: tuple[int, int]
    user_token: bool

    def from_newest(self) -> Tensor:
        """-> [P], the number of tokens behind each in its row; 0 for padding."""
        return (self.last[self.row] - torch.arange(len(self.row), device=self.row.device)).clamp(min=0)

    def take(self, column: Tensor, of_users: Tensor | None = None) -> Tensor:
        """column [B, T] of a batch -> [P], 0 for padding and, unless of_users [B] has values for them, for user
        tokens."""
        taken = column.reshape(-1)[self.events.clamp(min=0)].masked_fill(self.events < 0, 0)
        return taken if of_users is None or not self.user_token else taken.index_copy(0, self.first, of_users)

    def to_batch(self, tokens: Tensor) -> Tensor:
        """tokens [P, D] -> [B, T, D] at the places of the batch's events, zero where there is none; with a user token
        [B, T + 1, D], the user's first."""
        rows, length = self.shape
        width = length + int(self.user_token)
        cells = self.events
        if self.user_token:
            cells = torch.where(self.place == 0, self.row * width, torch.where(cells < 0, -1, cells + self.row + 1))
        cells = torch.where(cells < 0, rows * width, cells)
        flat = tokens.new_zeros(rows * width + 1, tokens.shape[1])  # the last row takes the padding
        return flat.index_copy(0, cells, tokens)[:-1].view(rows, width, -1)

    def newest(self, tokens: Tensor) -> Tensor:
        """tokens [P, D] -> [B, D], each row's newest; zero where the row has none."""
        found = tokens[self.last.clamp(min=0)]
        return found.masked_fill((self.last < 0).unsqueeze(-1), 0)


def lay_out(batch: Batch, *, user_token: bool, packed: bool | None = None) -> Layout:
    """The tokens of each row of a batch: with user_token the user's, then its events, oldest first.

    packed: true = only the tokens that exist, grouped by length (best on a CPU); false = the whole grid (best on a GPU:
    shapes are static, and the host need not know the lengths); None = packed on a CPU where padding is over 30 %.
    """
    real = batch.items != 0
    # All columns behind the first event count as events, so that a position never depends on an item's number.
    lengths = torch.where(real.any(1), real.shape[1] - real.int().argmax(1), 0) + int(user_token)
    if packed is None:
        cells = real.shape[0] * (real.shape[1] + int(user_token))
        packed = not real.is_cuda and int(lengths.sum()) < WORTH_PACKING * cells
    if packed and lengths.any():
        return _packed(lengths, real.shape[1], user_token)
    return _grid(lengths, real.shape[1], user_token)


def _grid(lengths: Tensor, length: int, user_token: bool) -> Layout:
    count, width = len(lengths), length + int(user_token)
    row = torch.arange(count, device=lengths.device).repeat_interleave(width)
    place = torch.arange(width, device=lengths.device).repeat(count)
    first = torch.arange(count, device=lengths.device) * width
    return Layout(
        row=row,
        place=place,
        events=_events(row, place, lengths, length, user_token),
        first=first,
        last=torch.where(lengths > 0, first + lengths - 1, -1),
        groups=(Group(0, count * width, count, width, None),),
        shape=(count, length),
        user_token=user_token,
    )


def _packed(lengths: Tensor, length: int, user_token: bool) -> Layout:
    order = torch.argsort(lengths)
    sizes = lengths[order]
    ends = sizes.cumsum(0)
    row = order.repeat_interleave(sizes)
    place = torch.arange(len(row), device=row.device) - (ends - sizes).repeat_interleave(sizes)
    groups = []
    sizes_list, ends_list = sizes.tolist(), [0, *ends.tolist()]
    cuts = sorted({round(share * len(order)) for share in CUTS})
    for first, last in itertools.pairwise(cuts):
        start, stop, longest = ends_list[first], ends_list[last], sizes_list[last - 1]
        if stop > start:
            within = torch.arange(last - first, device=row.device).repeat_interleave(sizes[first:last])
            groups.append(Group(start, stop, last - first, longest, within * longest + place[start:stop]))
    back = torch.argsort(order)
    return Layout(
        row=row,
        place=place,
        events=_events(row, place, lengths, length, user_token),
        first=(ends - sizes)[back],
        last=torch.where(sizes > 0, ends - 1, -1)[back],
        groups=tuple(groups),
        shape=(len(lengths), length),
        user_token=user_token,
    )


def _events(row: Tensor, place: Tensor, lengths: Tensor, length: int, user_token: bool) -> Tensor:
    of_row = lengths[row]
    column = length - of_row + place  # the row's newest token is its newest event
    is_event = (place >= int(user_token)) & (place < of_row)
    return torch.where(is_event, row * length + column, -1)
