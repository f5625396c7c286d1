"""Transformer blocks that decode with a KV cache: a history in one causal pass, then token by token for many beams.

A history's keys and values are cached once a user and shared by that user's beams, so that attention to them is one
matrix product a user. A beam's own cache holds the tokens that it has generated, and nothing else.

Shapes: P tokens, D width, H heads, E = D / H, B users, S longest history in tokens, R beams of all users, W most beams
that a user has, n tokens that each beam has generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from grbench_reference.kernels.embedding import Dropout
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.kernels.rotary import rotate_qkv
from grbench_reference.layers.mixture_of_experts import MixtureOfExperts
from grbench_reference.layers.token_packing import Layout
from grbench_reference.layers.transformer import FeedForward, Rotary, causal_attention, with_key_bias


class KeyValues(NamedTuple):
    """The keys and values of one block: of histories [B, H, S, E], or of generated tokens [R, H, n, E].

    Where keys have a bias they are wider, and carry it (see `with_key_bias`).
    """

    keys: Tensor
    values: Tensor


class BlockOutput(NamedTuple):
    """tokens: [P, D]; key_values: of each group of the layout; balance: the experts' balance loss, None without any."""

    tokens: Tensor
    key_values: list[KeyValues]
    balance: Tensor | None


@dataclass(frozen=True)
class BeamOwners:
    """Which user each beam belongs to.

    owner: [R], its user's row of the batch; lengths: [B], tokens of each history; cells: [R], the beam's place in the
    flattened grid of B users x W beams; width: W.
    """

    owner: Tensor
    lengths: Tensor
    cells: Tensor
    width: int

    @classmethod
    def of(cls, owner: Tensor, lengths: Tensor) -> BeamOwners:
        """The grid has as many columns as the user with most beams. Reading that number from the device makes the host
        wait, once a step."""
        counts = torch.bincount(owner, minlength=len(lengths))
        order = owner.argsort(stable=True)
        rank = torch.empty_like(owner)
        rank[order] = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner[order]]
        width = int(counts.max())
        return cls(owner, lengths, owner * width + rank, width)

    def grid(self, values: Tensor) -> Tensor:
        """[R, H, ...] -> [B, H, W, ...], zero where a user has fewer than W beams."""
        empty = values.new_zeros(len(self.lengths) * self.width, *values.shape[1:])
        filled = empty.index_copy(0, self.cells, values)
        return filled.view(len(self.lengths), self.width, *values.shape[1:]).transpose(1, 2)

    def take(self, grid: Tensor) -> Tensor:
        """[B, H, W, ...] -> [R, H, ...]"""
        return grid.transpose(1, 2).flatten(0, 1)[self.cells]


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every block: of the histories once a user, of generated tokens once a beam."""

    history: tuple[KeyValues, ...]
    generated: tuple[KeyValues, ...]
    beams: BeamOwners

    @classmethod
    def of(cls, history: list[KeyValues], lengths: Tensor) -> KVCache:
        """One beam a user, without generated tokens. history: of each block; lengths: [B], tokens of each history."""
        empty = [KeyValues(block.keys[:, :, :0], block.values[:, :, :0]) for block in history]
        users = torch.arange(len(lengths), device=lengths.device)
        return cls(tuple(history), tuple(empty), BeamOwners.of(users, lengths))

    def select(self, rows: Tensor) -> KVCache:
        """rows [R'] index the current beams: repeats, drops or reorders them; the histories' part stays as it is."""
        generated = tuple(KeyValues(block.keys[rows], block.values[rows]) for block in self.generated)
        return KVCache(self.history, generated, BeamOwners.of(self.beams.owner[rows], self.beams.lengths))


class CachedAttention(nn.Module):
    """Causal self-attention with rotary positions that gives its keys and values out, and goes on from cached ones.

    key_bias: actions of keys [P] -> [P, H], added to the scores of each key. Generated tokens have no action: theirs
    is 0.
    """

    def __init__(self, width: int, heads: int, *, dropout: float, rotary: Rotary, key_bias: nn.Module | None) -> None:
        super().__init__()
        self.heads, self.share, self.rotary, self.key_bias = heads, dropout, rotary, key_bias
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, layout: Layout, actions: Tensor) -> tuple[Tensor, list[KeyValues]]:
        """tokens [P, D], actions [P] -> ([P, D], each group's keys and values)."""
        cos, sin = self.rotary.cos[layout.place], self.rotary.sin[layout.place]
        qkv = rotate_qkv(self.qkv(tokens).view(len(tokens), 3, self.heads, -1), cos, sin)
        bias = None if self.key_bias is None else self.key_bias(actions)
        attended, key_values = [], []
        for group in layout.groups:
            query, key, value = group.grid(qkv).permute(2, 0, 3, 1, 4)
            if bias is not None:
                query, key = with_key_bias(query, key, group.grid(bias).transpose(1, 2))
            mixed = causal_attention(query, key, value, self.share if self.training else 0.0)
            attended.append(group.tokens(mixed.transpose(1, 2).flatten(2)))
            key_values.append(KeyValues(key, value))
        return self.out(torch.cat(attended)), key_values

    def decode(
        self, tokens: Tensor, history: KeyValues, generated: KeyValues, beams: BeamOwners
    ) -> tuple[Tensor, KeyValues]:
        """tokens [R, D], each beam's next -> ([R, D], the generated tokens' cache with them in it)."""
        query, key, value = self.qkv(tokens).view(len(tokens), 3, self.heads, -1).unbind(1)
        place = beams.lengths[beams.owner] + generated.keys.shape[2]
        query, key = self.rotary.at(query, place.unsqueeze(1)), self.rotary.at(key, place.unsqueeze(1))
        if self.key_bias is not None:
            query, key = with_key_bias(query, key, key.new_zeros(key.shape[:2]))
        query = query * value.shape[2] ** -0.5
        generated = KeyValues(
            torch.cat([generated.keys, key.unsqueeze(2)], 2), torch.cat([generated.values, value.unsqueeze(2)], 2)
        )
        length = history.keys.shape[2]
        padding = torch.arange(length, device=tokens.device) >= beams.lengths.unsqueeze(1)
        history_scores = beams.grid(query) @ history.keys.transpose(2, 3)
        history_scores = history_scores.masked_fill(padding[:, None, None], -torch.inf)
        generated_scores = beams.grid((query.unsqueeze(2) * generated.keys).sum(3))
        weights = torch.cat([history_scores, generated_scores], 3).softmax(3)
        mixed = beams.take(weights[..., :length] @ history.values)
        mixed = mixed + (beams.take(weights[..., length:]).unsqueeze(3) * generated.values).sum(2)
        return self.out(mixed.flatten(1)), generated


class DecoderBlock(nn.Module):
    """Cached attention, then SwiGLU or a mixture of experts, each after an RMSNorm and with its residual."""

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
        self.attention = CachedAttention(width, heads, dropout=attention_dropout, rotary=rotary, key_bias=key_bias)
        self.feed_forward = feed_forward
        self.attention_norm, self.feed_forward_norm = RMSNorm(width), RMSNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, layout: Layout, actions: Tensor, real: Tensor | None) -> BlockOutput:
        """actions: [P] of the tokens; real: [P] bool, false for padding; None = none is padding."""
        attended, key_values = self.attention(self.attention_norm(tokens), layout, actions)
        tokens, balance = self._feed(tokens + self.dropout(attended), real)
        return BlockOutput(tokens, key_values, balance)

    def decode(
        self, tokens: Tensor, history: KeyValues, generated: KeyValues, beams: BeamOwners
    ) -> tuple[Tensor, KeyValues]:
        """tokens [R, D], each beam's next -> ([R, D], the generated tokens' cache with them in it)."""
        attended, generated = self.attention.decode(self.attention_norm(tokens), history, generated, beams)
        return self._feed(tokens + attended, None)[0], generated

    def _feed(self, tokens: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """tokens [P, D] -> ([P, D] after the feed-forward layer, the experts' balance loss or None)."""
        normed = self.feed_forward_norm(tokens)
        if isinstance(self.feed_forward, MixtureOfExperts):
            mixed, balance = self.feed_forward(normed, real)
        else:
            mixed, balance = self.feed_forward(normed), None
        return tokens + self.dropout(mixed), balance
