"""How a semantic-id decoder reads a history: one token an item, or one a code. Either gives the states that the codes
of the next item are written from.

Shapes: B users, T history length, L levels, P positions with a target, N items, D width, R rows (beams of all users),
S tokens of a row: T, or T L and the L - 1 first codes of the last target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from grbench.errors import RunError
from grbench.types import Batch
from grbench_reference.encoders.one_pass import OnePass
from grbench_reference.features.code_table import CodeTable, SummedCodes
from grbench_reference.features.event_context import EventContext
from grbench_reference.features.fusion import Tower
from grbench_reference.features.parts import TABLE_SPREAD
from grbench_reference.kernels.embedding import Dropout, distinct_rows
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.layers.action_conditioning import TokenActions
from grbench_reference.layers.cached_decoding import Cache, KeyValues, WritingBlock
from grbench_reference.layers.token_packing import Layout, lay_out


class EncodedBatch(NamedTuple):
    """tokens: of the layout [P, D], or in the places of a batch's tokens [B, S, D], events [B, T, D] or codes to write
    [P, L, D]; kept: each block's keys and values of the last group; balance: the experts' mean balance loss, None where
    there are none."""

    tokens: Tensor
    kept: list[KeyValues]
    balance: Tensor | None


class Backbone(nn.Module):
    """A token for the start, the user's where profiles are read, then the history's, through causal blocks."""

    def __init__(self, blocks: Sequence[WritingBlock], width: int, *, users: Tower | None, dropout: float) -> None:
        super().__init__()
        self.anyone = nn.Parameter(torch.empty(width).normal_(std=TABLE_SPREAD))
        self.users: Tower | None = users
        self.blocks, self.dropout = nn.ModuleList(blocks), Dropout(dropout)
        self.last_norm = RMSNorm(width)

    def forward(self, tokens: Tensor, actions: Tensor, batch: Batch, layout: Layout) -> EncodedBatch:
        """tokens [P, D], those of the start being replaced, and their actions [P] -> each token's state."""
        start = self.anyone.expand(len(batch.users), -1)
        if self.users is not None:
            start = start + self.users(batch.users)
        tokens = self.dropout(tokens.index_copy(0, layout.first, start))
        real = torch.arange(len(tokens), device=tokens.device) <= layout.last[layout.row]
        kept, balances = [], []
        for block in self.blocks:
            output = block(tokens, layout, actions, real)
            tokens = output.tokens
            kept.append(output.kept[-1])
            if output.balance is not None:
                balances.append(output.balance)
        return EncodedBatch(self.last_norm(tokens), kept, torch.stack(balances).mean() if balances else None)

    def extend(self, tokens: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """tokens [R, D], one more a row -> ([R, D], the cache with it)."""
        grown = []
        for block, history, written in zip(self.blocks, cache.history, cache.written, strict=True):
            assert isinstance(block, WritingBlock)
            tokens, more = block.extend(tokens, history, written, cache.rows)
            grown.append(more)
        return self.last_norm(tokens), replace(cache, written=tuple(grown))


@dataclass(frozen=True)
class Sums:
    """Where a reader of items stands: [R, D], the history's state with the embeddings of the codes written since."""

    sums: Tensor

    def select(self, rows: Tensor) -> Sums:
        """Repeats, keeps or reorders rows."""
        return Sums(self.sums[rows])


class ItemReader(nn.Module):
    """One token an item. Its state and the sum of the codes written so far are what the next code is written from, so
    that a position costs one token, whatever L."""

    def __init__(
        self, items: SummedCodes, actions: TokenActions | None, context: EventContext | None, backbone: Backbone
    ) -> None:
        super().__init__()
        self.items, self.actions, self.context, self.backbone = items, actions, context, backbone
        self.one_pass: OnePass[EncodedBatch] = OnePass()

    @property
    def codes(self) -> CodeTable:
        """The embeddings of codes."""
        return self.items.codes

    def embed(self, batch: Batch, items: Tensor) -> tuple[EncodedBatch, Tensor]:
        """items [N] -> (states [B, T, D], vectors [N, D])."""
        known = self.one_pass.of(batch)
        if known is not None:
            return known, self.items.each_once(items)[0]
        layout = lay_out(batch, user_token=True)
        events, vectors = self.items.each_once(layout.take(batch.items), items)
        read = self._read(events, batch, layout)
        return self.one_pass.keep(batch, read._replace(tokens=layout.give_back(read.tokens))), vectors

    def states(self, batch: Batch) -> EncodedBatch:
        """[B, T, D] the state after each event."""
        return self.embed(batch, batch.items.new_empty(0))[0]

    def newest(self, batch: Batch) -> Tensor:
        """[B, D] the state after the newest event; after the start where there is none."""
        layout = lay_out(batch, user_token=True)
        (events,) = self.items.each_once(layout.take(batch.items))
        return layout.newest(self._read(events, batch, layout).tokens)

    def teach(self, batch: Batch, places: Tensor) -> EncodedBatch:
        """places [P] in the flattened [B T] grid -> [P, L, D], what each code of the target is written from."""
        read = self.states(batch)
        states = distinct_rows(read.tokens.flatten(0, 1), places)
        if self.codes.levels == 1:
            return read._replace(tokens=states.unsqueeze(1))
        codes = self.codes.codes_of(batch.targets.reshape(-1)[places])
        earlier = self.codes.vectors((codes + self.codes.starts)[:, :-1])
        return read._replace(tokens=torch.cat([states.unsqueeze(1), earlier], 1).cumsum(1))

    def start(self, batch: Batch) -> tuple[Tensor, Sums]:
        """-> ([B, D] what the first code is written from, where the reader stands)."""
        states = self.newest(batch)
        return states, Sums(states)

    def step(self, level: int, codes: Tensor, state: Sums) -> tuple[Tensor, Sums]:
        """codes [R] of a level -> ([R, D] what the next code is written from, where the reader stands)."""
        sums = state.sums + self.codes.embed(level, codes)
        return sums, Sums(sums)

    def _read(self, events: Tensor, batch: Batch, layout: Layout) -> EncodedBatch:
        actions = layout.take(batch.actions)
        if self.context is not None:
            events = events + self.context(batch, layout.events)
        if self.actions is not None:
            events = self.actions(events, actions)
        read: EncodedBatch = self.backbone(events, actions, batch, layout)
        return read


class CodeReader(nn.Module):
    """L tokens an item, all read. The last one also holds the event's action and context and the item's features, which
    are not known while the codes before it are written."""

    def __init__(
        self, items: SummedCodes, actions: TokenActions | None, context: EventContext | None, backbone: Backbone
    ) -> None:
        super().__init__()
        self.items, self.actions, self.context, self.backbone = items, actions, context, backbone
        self.one_pass: OnePass[EncodedBatch] = OnePass()
        self.level = nn.Parameter(torch.empty(items.codes.levels, backbone.anyone.shape[0]).normal_(std=TABLE_SPREAD))

    @property
    def codes(self) -> CodeTable:
        """The embeddings of codes."""
        return self.items.codes

    def embed(self, batch: Batch, items: Tensor) -> tuple[EncodedBatch, Tensor]:
        """items [N] -> (states [B, T, D] after the last code of each event, vectors [N, D])."""
        read = self._grid(batch, taught=False)
        (vectors,) = self.items.each_once(items)
        return read._replace(tokens=read.tokens[:, self.codes.levels - 1 :: self.codes.levels]), vectors

    def states(self, batch: Batch) -> EncodedBatch:
        """[B, T, D] the state after the last code of each event."""
        return self.embed(batch, batch.items.new_empty(0))[0]

    def newest(self, batch: Batch) -> Tensor:
        """[B, D] the state after the newest code; after the start where there is none."""
        read, layout = self._read(batch, taught=False)
        return layout.newest(read.tokens)

    def teach(self, batch: Batch, places: Tensor) -> EncodedBatch:
        """places [P] in the flattened [B T] grid -> [P, L, D], the state before each code of the target.

        The codes before it are those of the next event in the history, so a target must be that event's item.
        """
        wrong = (batch.targets[:, :-1] != batch.items[:, 1:]) & (batch.targets[:, :-1] > 0)
        if bool(wrong.any()):
            user = int(batch.users[wrong.any(1)][0])
            raise RunError(
                f"encoder.history: reading codes, every target must be the event that follows; user row {user} has "
                "another one. Read items"
            )
        levels, length = self.codes.levels, batch.items.shape[1]
        read = self._grid(batch, taught=True)
        grid = read.tokens
        row, place = places // length, places % length
        before = row * grid.shape[1] + place * levels + levels - 1
        cells = before.unsqueeze(1) + torch.arange(levels, device=places.device)
        states = distinct_rows(grid.flatten(0, 1), cells.reshape(-1))
        return read._replace(tokens=states.view(*cells.shape, states.shape[1]))

    def start(self, batch: Batch) -> tuple[Tensor, Cache]:
        """-> ([B, D] the state after the history, its keys and values)."""
        met = (batch.items != 0).any(0)
        met[-1] = True
        first = int(met.int().argmax())
        columns = {
            name: getattr(batch, name)[:, first:] for name in ("items", "actions", "times", "targets", "next_actions")
        }
        read, layout = self._read(replace(batch, **columns), taught=False, packed=False)
        return layout.newest(read.tokens), Cache.of(read.kept, layout.last - layout.first + 1)

    def step(self, level: int, codes: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        """codes [R] of a level -> ([R, D] the state after them, the cache with them)."""
        return self.backbone.extend(self.codes.embed(level, codes) + self.level[level], state)

    def _grid(self, batch: Batch, *, taught: bool) -> EncodedBatch:
        """[B, S, D]. In a pass that losses share all is read that any may ask for: no token sees those after it."""
        known = self.one_pass.of(batch)
        if known is not None:
            return known
        read, layout = self._read(batch, taught=taught or self.one_pass.is_open)
        return self.one_pass.keep(batch, read._replace(tokens=layout.give_back(read.tokens)))

    def _read(self, batch: Batch, *, taught: bool, packed: bool | None = None) -> tuple[EncodedBatch, Layout]:
        """taught: the last target's codes but its last are read too. -> states and their layout of [B, S]."""
        levels = self.codes.levels
        rows, items, ends = self.codes.read(batch.items), batch.items, (0, 0)
        if taught and levels > 1:
            last = batch.targets[:, -1:]
            written = self.codes.codes_of(last) + self.codes.starts
            rows, items, ends = torch.cat([rows, written], 1), torch.cat([items, last], 1), (0, levels - 1)
        size = batch.items.shape[1] * levels + ends[1]
        stretched = replace(batch, items=items.repeat_interleave(levels, 1)[:, :size])
        layout = lay_out(stretched, user_token=True, packed=packed)
        level = torch.arange(size, device=items.device) % levels
        tokens = self.codes.vectors(layout.take(rows.flatten(1)[:, :size]))
        tokens = tokens + self.level[layout.take(level.expand(len(items), -1))]

        def at_last_code(column: Tensor) -> Tensor:
            """[B, T] -> [P], 0 at all other tokens."""
            return layout.take(pad(pad(column.unsqueeze(2), (levels - 1, 0)).flatten(1), ends))

        if self.items.features is not None:
            (known,) = self.items.features.each_once(at_last_code(batch.items))
            tokens = tokens + known
        if self.context is not None:
            numbers = torch.arange(1, batch.items.numel() + 1, device=items.device).view_as(batch.items)
            tokens = tokens + self.context(batch, at_last_code(numbers) - 1)
        actions = at_last_code(batch.actions)
        if self.actions is not None:
            tokens = self.actions(tokens, actions)
        return self.backbone(tokens, actions, batch, layout), layout
