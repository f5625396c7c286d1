"""Transformer blocks that can write: causal over a whole history at once, then token by token for many beams.

A history's keys and values are kept once a user. Beams attend to their user's, whose products are one matrix product a
user, and to the few tokens that they have written themselves; a beam owns nothing else.

Shapes: P tokens, D width, H heads, E = D / H, B users, S longest history in tokens, R rows (beams of all users),
W most rows a user has, n tokens that each row has written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from grbench_reference.kernels.embedding import Dropout
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.kernels.rotary import turned
from grbench_reference.layers.mixture_of_experts import MixtureOfExperts
from grbench_reference.layers.token_packing import Layout
from grbench_reference.layers.transformer import FeedForward, Rotary, causal_attention, with_key_bias


class KeyValues(NamedTuple):
    """What one block keeps: of histories [B, H, S, E], or of what rows have written [R, H, n, E].

    Where keys have a bias they are wider, and carry it.
    """

    keys: Tensor
    values: Tensor


class BlockOutput(NamedTuple):
    """tokens: [P, D]; kept: one for each group of the layout; balance: of the experts, where there are any."""

    tokens: Tensor
    kept: list[KeyValues]
    balance: Tensor | None


@dataclass(frozen=True)
class Rows:
    """Whose each row is. owner: [R] user; lengths: [B] tokens of each history; cells: [R] in a grid of B x W."""

    owner: Tensor
    lengths: Tensor
    cells: Tensor
    width: int

    @classmethod
    def of(cls, owner: Tensor, lengths: Tensor) -> Rows:
        """The grid has as many columns as the user with most rows; its shape makes the host wait, once a step."""
        counts = torch.bincount(owner, minlength=len(lengths))
        order = owner.argsort(stable=True)
        rank = torch.empty_like(owner)
        rank[order] = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner[order]]
        width = int(counts.max())
        return cls(owner, lengths, owner * width + rank, width)

    def grid(self, values: Tensor) -> Tensor:
        """[R, H, ...] -> [B, H, W, ...], zero where a user has fewer rows."""
        empty = values.new_zeros(len(self.lengths) * self.width, *values.shape[1:])
        filled = empty.index_copy(0, self.cells, values)
        return filled.view(len(self.lengths), self.width, *values.shape[1:]).transpose(1, 2)

    def take(self, grid: Tensor) -> Tensor:
        """[B, H, W, ...] -> [R, H, ...]"""
        return grid.transpose(1, 2).flatten(0, 1)[self.cells]


@dataclass(frozen=True)
class Cache:
    """Every block's keys and values: `history` once a user, `written` once a row."""

    history: tuple[KeyValues, ...]
    written: tuple[KeyValues, ...]
    rows: Rows

    @classmethod
    def of(cls, history: list[KeyValues], lengths: Tensor) -> Cache:
        """One row a user, that has written nothing."""
        nothing = [KeyValues(*(side[:, :, :0] for side in kept)) for kept in history]
        users = torch.arange(len(lengths), device=lengths.device)
        return cls(tuple(history), tuple(nothing), Rows.of(users, lengths))

    def select(self, rows: Tensor) -> Cache:
        """Repeats, keeps or reorders rows; histories stay as they are."""
        written = tuple(KeyValues(kept.keys[rows], kept.values[rows]) for kept in self.written)
        return Cache(self.history, written, Rows.of(self.rows.owner[rows], self.rows.lengths))


class WritingAttention(nn.Module):
    """Self-attention of every token over its row's tokens up to itself, with rotary positions.

    key_bias: actions of keys [P] -> [P, H], added to the scores of each key. What rows write has no action yet.
    """

    def __init__(self, width: int, heads: int, *, dropout: float, rotary: Rotary, key_bias: nn.Module | None) -> None:
        super().__init__()
        self.heads, self.share, self.rotary, self.key_bias = heads, dropout, rotary, key_bias
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, layout: Layout, actions: Tensor) -> tuple[Tensor, list[KeyValues]]:
        """tokens [P, D], actions [P] -> ([P, D], each group's keys and values)."""
        cos, sin = self.rotary.cos[layout.place], self.rotary.sin[layout.place]
        qkv = turned(self.qkv(tokens).view(len(tokens), 3, self.heads, -1), cos, sin)
        bias = None if self.key_bias is None else self.key_bias(actions)
        attended, kept = [], []
        for group in layout.groups:
            query, key, value = group.grid(qkv).permute(2, 0, 3, 1, 4)
            if bias is not None:
                query, key = with_key_bias(query, key, group.grid(bias).transpose(1, 2))
            mixed = causal_attention(query, key, value, self.share if self.training else 0.0)
            attended.append(group.tokens(mixed.transpose(1, 2).flatten(2)))
            kept.append(KeyValues(key, value))
        return self.out(torch.cat(attended)), kept

    def extend(self, tokens: Tensor, history: KeyValues, written: KeyValues, rows: Rows) -> tuple[Tensor, KeyValues]:
        """tokens [R, D], one more a row -> ([R, D], what the rows have written by now)."""
        query, key, value = self.qkv(tokens).view(len(tokens), 3, self.heads, -1).unbind(1)
        place = rows.lengths[rows.owner] + written.keys.shape[2]
        query, key = self._turn(query, place), self._turn(key, place)
        if self.key_bias is not None:
            query, key = with_key_bias(query, key, key.new_zeros(key.shape[:2]))
        query = query * value.shape[2] ** -0.5
        written = KeyValues(
            torch.cat([written.keys, key.unsqueeze(2)], 2), torch.cat([written.values, value.unsqueeze(2)], 2)
        )
        length = history.keys.shape[2]
        hidden = torch.arange(length, device=tokens.device) >= rows.lengths.unsqueeze(1)
        to_history = rows.grid(query) @ history.keys.transpose(2, 3)
        to_history = to_history.masked_fill(hidden[:, None, None], -torch.inf)
        to_written = rows.grid((query.unsqueeze(2) * written.keys).sum(3))
        shares = torch.cat([to_history, to_written], 3).softmax(3)
        mixed = rows.take(shares[..., :length] @ history.values)
        mixed = mixed + (rows.take(shares[..., length:]).unsqueeze(3) * written.values).sum(2)
        return self.out(mixed.flatten(1)), written

    def _turn(self, values: Tensor, place: Tensor) -> Tensor:
        """values [R, H, E], each at its own place [R]: what Rotary does to a whole grid."""
        cos, sin = (side[place].unsqueeze(1).to(values.dtype) for side in (self.rotary.cos, self.rotary.sin))
        first, second = values.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class WritingBlock(nn.Module):
    """Attention, then SwiGLU or a mixture of experts, each after an RMSNorm and with its residual."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        feed_forward: FeedForward | MixtureOfExperts,
        dropout: float,
        attention_dropout: float,
        rotary: Rotary,
        key_bias: nn.Module | None,
    ) -> None:
        super().__init__()
        self.attention = WritingAttention(width, heads, dropout=attention_dropout, rotary=rotary, key_bias=key_bias)
        self.feed_forward = feed_forward
        self.attention_norm, self.feed_forward_norm = RMSNorm(width), RMSNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, layout: Layout, actions: Tensor, real: Tensor | None) -> BlockOutput:
        """actions: [P] of the tokens; real: [P] bool, the tokens that are no padding; None = all."""
        attended, kept = self.attention(self.attention_norm(tokens), layout, actions)
        tokens, balance = self._feed(tokens + self.dropout(attended), real)
        return BlockOutput(tokens, kept, balance)

    def extend(self, tokens: Tensor, history: KeyValues, written: KeyValues, rows: Rows) -> tuple[Tensor, KeyValues]:
        """tokens [R, D], one more a row -> ([R, D], what the rows have written by now)."""
        attended, written = self.attention.extend(self.attention_norm(tokens), history, written, rows)
        return self._feed(tokens + attended, None)[0], written

    def _feed(self, tokens: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        normed = self.feed_forward_norm(tokens)
        if isinstance(self.feed_forward, MixtureOfExperts):
            mixed, balance = self.feed_forward(normed, real)
        else:
            mixed, balance = self.feed_forward(normed), None
        return tokens + self.dropout(mixed), balance
