"""Heads of a decoder that judge partial code paths otherwise than by their likelihood.

Shapes: B users, S states of a history, Q paths of a user, l codes of a path, D width, H heads, E = D / H, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench.registry.option_types import OptionGroup
from grbench_reference.features.parts import TABLE_SPREAD
from grbench_reference.kernels.embedding import Dropout
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.layers.transformer import FeedForward


@dataclass(frozen=True, kw_only=True)
class PathHeadOptions(OptionGroup):
    """Heads that judge partial code paths.

    Args:
        verifier: a head that scores a path against the history's states (Promise, arXiv 2601.04674), taught by the loss
            path_verification and used by the retriever option `verify`.
        value_head: a head that predicts the reward of going on from a path (V-STAR, arXiv 2602.10699), taught by the
            loss path_value and used by the retriever option `value_weight`. It does not change the rest of the model.
    """

    verifier: bool = False
    value_head: bool = False


@dataclass(frozen=True)
class PathContext:
    """A history's states as a verifier reads them: keys and values [B, H, S, E]; visible: [B, S] bool, false where
    there is no state; next_actions: [B, S], the action token of the event after each state."""

    keys: Tensor
    values: Tensor
    visible: Tensor
    next_actions: Tensor


class PathVerifierHead(nn.Module):
    """Scores paths against histories: a path's token queries the history's states by one block of cross-attention,
    followed by a norm, a feed-forward layer and a linear map to a number."""

    def __init__(self, levels: int, width: int, heads: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.length = nn.Parameter(torch.empty(levels, width).normal_(std=TABLE_SPREAD))
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.query_norm, self.feed_norm, self.last_norm = RMSNorm(width), RMSNorm(width), RMSNorm(width)
        self.feed_forward = FeedForward(width, hidden, activation="swiglu", dropout=dropout)
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(width, 1, bias=False)  # softmax over scores knows no bias

    def read(self, states: Tensor, visible: Tensor, next_actions: Tensor) -> PathContext:
        """states [B, S, D], visible and next_actions [B, S]."""
        keys, values = self.key_value(states).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return PathContext(keys, values, visible, next_actions)

    def forward(self, tokens: Tensor, length: int, context: PathContext, ends: Tensor | None) -> Tensor:
        """tokens [B, Q, D] of paths of `length` codes -> scores [B, Q] float32. ends: [B, Q], the last state that each
        reads; None = all."""
        tokens = tokens + self.length[length - 1]
        query = self.query(self.query_norm(tokens)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        seen = context.visible[:, None, None]
        if ends is not None:
            place = torch.arange(context.visible.shape[1], device=ends.device)
            seen = seen & (place <= ends.unsqueeze(2)).unsqueeze(1)
        keys, values = context.keys.to(query.dtype), context.values.to(query.dtype)
        mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=seen)
        tokens = tokens + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        tokens = tokens + self.dropout(self.feed_forward(self.feed_norm(tokens)))
        scores: Tensor = self.score(self.last_norm(tokens))
        return scores[:, :, 0].float()


class ValueHead(nn.Module):
    """Predicts the reward of going on from partial paths: a causal block over the states of a path's prefixes, then an
    MLP. states [R, n, D], of no code up to n - 1 codes -> values [R, n] float32."""

    def __init__(self, width: int, heads: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attention_norm, self.feed_norm, self.last_norm = RMSNorm(width), RMSNorm(width), RMSNorm(width)
        self.feed_forward = FeedForward(width, hidden, activation="swiglu", dropout=dropout)
        self.dropout = Dropout(dropout)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, states: Tensor) -> Tensor:
        qkv = self.qkv(self.attention_norm(states)).unflatten(2, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        states = states + self.dropout(self.feed_forward(self.feed_norm(states)))
        values: Tensor = self.mlp(self.last_norm(states))
        return values[:, :, 0].float()
