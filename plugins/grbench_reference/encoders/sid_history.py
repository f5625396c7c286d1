"""How a semantic-ID decoder encodes a history: with one token an item, or with one token a code.

Either way gives the states from which the codes of the next item are decoded.

Shapes: B users, T history length, L levels, P positions with a target, N items, D width, R beams of all users, S tokens
of a row: the start token, and T or T L and the L - 1 first codes of the last target.
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
from grbench_reference.layers.cached_decoding import DecoderBlock, KeyValues, KVCache
from grbench_reference.layers.token_packing import Layout, lay_out


class EncodedHistory(NamedTuple):
    """States of a batch's histories.

    states: of the layout's tokens [P, D], of a batch's tokens [B, S, D], of the start token and the events
    [B, T + 1, D], or of the codes to decode [P, L, D]. key_values: of each block, for the layout's last group. balance:
    mean balance loss of the experts, None where there are none.
    """

    states: Tensor
    key_values: list[KeyValues]
    balance: Tensor | None


class Backbone(nn.Module):
    """Causal blocks over a start token, plus the user's profile where there is one, and the history's tokens."""

    def __init__(self, blocks: Sequence[DecoderBlock], width: int, *, users: Tower | None, dropout: float) -> None:
        super().__init__()
        self.start_token = nn.Parameter(torch.empty(width).normal_(std=TABLE_SPREAD))
        self.users: Tower | None = users
        self.blocks, self.dropout = nn.ModuleList(blocks), Dropout(dropout)
        self.last_norm = RMSNorm(width)

    def forward(self, tokens: Tensor, actions: Tensor, batch: Batch, layout: Layout) -> EncodedHistory:
        """tokens [P, D], of which the start tokens are replaced; actions [P] of the tokens -> each token's state."""
        start = self.start_token.expand(len(batch.users), -1)
        if self.users is not None:
            start = start + self.users(batch.users)
        tokens = self.dropout(tokens.index_copy(0, layout.first, start))
        real = torch.arange(len(tokens), device=tokens.device) <= layout.last[layout.row]
        key_values, balances = [], []
        for block in self.blocks:
            output = block(tokens, layout, actions, real)
            tokens = output.tokens
            key_values.append(output.key_values[-1])
            if output.balance is not None:
                balances.append(output.balance)
        balance = torch.stack(balances).mean() if balances else None
        return EncodedHistory(self.last_norm(tokens), key_values, balance)

    def decode(self, tokens: Tensor, cache: KVCache) -> tuple[Tensor, KVCache]:
        """tokens [R, D], each beam's next -> ([R, D] their states, the cache with them in it)."""
        generated = []
        for block, history, earlier in zip(self.blocks, cache.history, cache.generated, strict=True):
            assert isinstance(block, DecoderBlock)
            tokens, with_token = block.decode(tokens, history, earlier, cache.beams)
            generated.append(with_token)
        return self.last_norm(tokens), replace(cache, generated=tuple(generated))


@dataclass(frozen=True)
class SummedState:
    """Decoding state of ItemTokens: [R, D], the history's state plus the embeddings of the codes decoded since."""

    sums: Tensor

    def select(self, rows: Tensor) -> SummedState:
        """rows [R'] index the current beams: repeats, drops or reorders them."""
        return SummedState(self.sums[rows])


class ItemTokens(nn.Module):
    """One token an item. A code is decoded from the state of the newest event's token plus the sum of the embeddings of
    the codes before it, so that a position costs one token, whatever L."""

    def __init__(
        self, items: SummedCodes, actions: TokenActions | None, context: EventContext | None, backbone: Backbone
    ) -> None:
        super().__init__()
        self.items, self.actions, self.context, self.backbone = items, actions, context, backbone
        self.one_pass: OnePass[EncodedHistory] = OnePass()

    @property
    def codes(self) -> CodeTable:
        """The codes of items and their embeddings."""
        return self.items.codes

    def embed(self, batch: Batch, items: Tensor) -> tuple[EncodedHistory, Tensor]:
        """items [N] -> (states [B, T + 1, D] of the start token and after each event, vectors [N, D])."""
        known = self.one_pass.get(batch)
        if known is not None:
            return known, self.items.each_once(items)[0]
        layout = lay_out(batch, user_token=True)
        events, vectors = self.items.each_once(layout.take(batch.items), items)
        encoded = self._encode(events, batch, layout)
        return self.one_pass.put(batch, encoded._replace(states=layout.to_batch(encoded.states))), vectors

    def states(self, batch: Batch) -> EncodedHistory:
        """[B, T + 1, D], the states of the start token and after each event."""
        return self.embed(batch, batch.items.new_empty(0))[0]

    def newest(self, batch: Batch) -> Tensor:
        """[B, D], the state after the newest event; that of the start token where there is none."""
        states = self.states(batch).states
        some = (batch.items != 0).any(1, keepdim=True)
        return torch.where(some, states[:, -1], states[:, 0])

    def teacher_forced(self, batch: Batch, positions: Tensor) -> EncodedHistory:
        """positions [P] in the flattened [B, T + 1] grid -> [P, L, D], the input of the code decoder at each level,
        given the target's codes of the levels before."""
        encoded = self.states(batch)
        states = distinct_rows(encoded.states.flatten(0, 1), positions)
        if self.codes.levels == 1:
            return encoded._replace(states=states.unsqueeze(1))
        codes = self.codes.codes_of(batch.all_targets.reshape(-1)[positions])
        earlier = self.codes.vectors((codes + self.codes.starts)[:, :-1])
        return encoded._replace(states=torch.cat([states.unsqueeze(1), earlier], 1).cumsum(1))

    def start(self, batch: Batch) -> tuple[Tensor, SummedState]:
        """-> ([B, D], the input of the code decoder at level 0, decoding state)."""
        states = self.newest(batch)
        return states, SummedState(states)

    def step(self, level: int, codes: Tensor, state: SummedState) -> tuple[Tensor, SummedState]:
        """codes [R] of a level -> ([R, D], the input of the code decoder at the next level, decoding state)."""
        sums = state.sums + self.codes.embed(level, codes)
        return sums, SummedState(sums)

    def _encode(self, events: Tensor, batch: Batch, layout: Layout) -> EncodedHistory:
        """events [P, D], each token's item vector -> each token's state."""
        actions = layout.take(batch.actions)
        if self.context is not None:
            events = events + self.context(batch, layout.events)
        if self.actions is not None:
            events = self.actions(events, actions)
        encoded: EncodedHistory = self.backbone(events, actions, batch, layout)
        return encoded


class CodeTokens(nn.Module):
    """L tokens an item, one a code. The last of them also carries the event's action and context and the item's
    features, which are unknown while the codes before it are decoded."""

    def __init__(
        self, items: SummedCodes, actions: TokenActions | None, context: EventContext | None, backbone: Backbone
    ) -> None:
        super().__init__()
        self.items, self.actions, self.context, self.backbone = items, actions, context, backbone
        self.one_pass: OnePass[EncodedHistory] = OnePass()
        levels, width = items.codes.levels, backbone.start_token.shape[0]
        self.level = nn.Parameter(torch.empty(levels, width).normal_(std=TABLE_SPREAD))

    @property
    def codes(self) -> CodeTable:
        """The codes of items and their embeddings."""
        return self.items.codes

    def embed(self, batch: Batch, items: Tensor) -> tuple[EncodedHistory, Tensor]:
        """items [N] -> (states [B, T + 1, D] of the start token and after the last code of each event, vectors
        [N, D])."""
        encoded = self._grid(batch, with_targets=False)
        (vectors,) = self.items.each_once(items)
        return encoded._replace(states=encoded.states[:, :: self.codes.levels]), vectors

    def states(self, batch: Batch) -> EncodedHistory:
        """[B, T + 1, D], the states of the start token and after the last code of each event."""
        return self.embed(batch, batch.items.new_empty(0))[0]

    def newest(self, batch: Batch) -> Tensor:
        """[B, D], the state after the newest code; that of the start token where there is none."""
        encoded, layout = self._encode(batch, with_targets=False)
        return layout.newest(encoded.states)

    def teacher_forced(self, batch: Batch, positions: Tensor) -> EncodedHistory:
        """positions [P] in the flattened [B, T + 1] grid -> [P, L, D], the state before each code of the target.

        The target's codes are those of the next event in the history, so a target must be that event's item; raises
        RunError where one is not.
        """
        first = _first_column(batch)
        taught = pad(batch.targets, (1, 0)).scatter(1, first.unsqueeze(1), batch.user_targets.unsqueeze(1))[:, :-1]
        wrong = (taught != batch.items) & (taught > 0)
        if bool(wrong.any()):
            user = int(batch.users[wrong.any(1)][0])
            raise RunError(
                "encoder.history: with codes, every target must be the item of the event that follows; that of user "
                f"row {user} is another one. Use `history: items`"
            )
        levels, length = self.codes.levels, batch.items.shape[1] + 1
        encoded = self._grid(batch, with_targets=True)
        grid = encoded.states
        row, place = positions // length, positions % length
        # The codes of the first event stand behind the padding, the start token that they follow before it.
        begins = row * grid.shape[1]
        before = begins + torch.where(place == 0, first[row], place) * levels
        cells = before.unsqueeze(1) + torch.arange(levels, device=positions.device)
        cells[:, 0] = torch.where(place == 0, begins, before)
        states = distinct_rows(grid.flatten(0, 1), cells.reshape(-1))
        return encoded._replace(states=states.view(*cells.shape, states.shape[1]))

    def start(self, batch: Batch) -> tuple[Tensor, KVCache]:
        """-> ([B, D], the state after the history, KV cache of the history)."""
        filled = (batch.items != 0).any(0)
        filled[-1] = True
        first = int(filled.int().argmax())
        columns = {
            name: getattr(batch, name)[:, first:] for name in ("items", "actions", "times", "targets", "next_actions")
        }
        encoded, layout = self._encode(replace(batch, **columns), with_targets=False, packed=False)
        return layout.newest(encoded.states), KVCache.of(encoded.key_values, layout.last - layout.first + 1)

    def step(self, level: int, codes: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:
        """codes [R] of a level -> ([R, D], the state after them, the cache with them in it)."""
        return self.backbone.decode(self.codes.embed(level, codes) + self.level[level], state)

    def _grid(self, batch: Batch, *, with_targets: bool) -> EncodedHistory:
        """[B, S, D]. In a pass that losses share the targets' codes are always included, since one loss may need them;
        attention is causal, so they change no state before them."""
        known = self.one_pass.get(batch)
        if known is not None:
            return known
        encoded, layout = self._encode(batch, with_targets=with_targets or self.one_pass.is_open)
        return self.one_pass.put(batch, encoded._replace(states=layout.to_batch(encoded.states)))

    def _encode(self, batch: Batch, *, with_targets: bool, packed: bool | None = None) -> tuple[EncodedHistory, Layout]:
        """with_targets: the codes of each row's last target, but its last code, follow the history (the codes of all
        other targets are in the history). -> states and their layout of [B, S]."""
        levels = self.codes.levels
        rows, items, ends = self.codes.rows(batch.items), batch.items, (0, 0)
        if with_targets and levels > 1:
            nothing = ~(batch.items != 0).any(1, keepdim=True)  # then the start token's target is the last
            last = torch.where(nothing, batch.user_targets.unsqueeze(1), batch.targets[:, -1:])
            of_last = self.codes.codes_of(last) + self.codes.starts
            rows, items, ends = torch.cat([rows, of_last], 1), torch.cat([items, last], 1), (0, levels - 1)
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
            (features,) = self.items.features.each_once(at_last_code(batch.items))
            tokens = tokens + features
        if self.context is not None:
            numbers = torch.arange(1, batch.items.numel() + 1, device=items.device).view_as(batch.items)
            tokens = tokens + self.context(batch, at_last_code(numbers) - 1)
        actions = at_last_code(batch.actions)
        if self.actions is not None:
            tokens = self.actions(tokens, actions)
        return self.backbone(tokens, actions, batch, layout), layout


def _first_column(batch: Batch) -> Tensor:
    """-> [B], the column of each row's first event; T where there is none."""
    real = batch.items != 0
    return torch.where(real.any(1), real.int().argmax(1), real.shape[1])
