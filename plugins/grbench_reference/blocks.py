"""Pieces of Transformer blocks that encoders share.

Shapes: P tokens, D width, G rows of a group padded to length L, H heads, E = D / H width of a head.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench_reference.kernels import Dropout, dropout
from grbench_reference.layout import Layout

Norm = Literal["layernorm", "rmsnorm"]
Activation = Literal["relu", "gelu", "swiglu"]


def normalisation(kind: Norm, width: int) -> nn.Module:
    """A normalisation over the last dimension."""
    return nn.LayerNorm(width) if kind == "layernorm" else nn.RMSNorm(width, eps=1e-6)


class FeedForward(nn.Module):
    """tokens [P, D] -> [P, D]. `swiglu` is Shazeer's gated form (arXiv 2002.05202), with its three matrices."""

    def __init__(self, width: int, hidden: int, *, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(width, 2 * hidden if activation == "swiglu" else hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.up(tokens)
        if self.activation == "swiglu":
            hidden, gate = hidden.chunk(2, dim=-1)
            hidden = hidden * functional.silu(gate)
        else:
            hidden = functional.relu(hidden) if self.activation == "relu" else functional.gelu(hidden)
        down: Tensor = self.down(self.dropout(hidden))
        return down


class Rotary(nn.Module):
    """Rotary positions (arXiv 2104.09864): [G, H, L, E] -> the same, turned by place."""

    cos: Tensor
    sin: Tensor

    def __init__(self, head_width: int, length: int, *, base: float = 10_000.0) -> None:
        super().__init__()
        speed = base ** (-torch.arange(0, head_width, 2) / head_width)
        angle = torch.arange(length)[:, None] * speed
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        cos, sin = self.cos[: values.shape[2]].to(values.dtype), self.sin[: values.shape[2]].to(values.dtype)
        first, second = values.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class CausalAttention(nn.Module):
    """Self-attention of every token over its row's tokens up to itself: tokens [P, D] -> [P, D]."""

    def __init__(self, width: int, heads: int, *, dropout: float, rotary: Rotary | None) -> None:
        super().__init__()
        self.heads, self.share = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.rotary = rotary

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        qkv = self.qkv(tokens)
        attended = [group.tokens(self._attend(group.grid(qkv))) for group in layout.groups]
        out: Tensor = self.out(torch.cat(attended))
        return out

    def _attend(self, qkv: Tensor) -> Tensor:
        """[G, L, 3 D] -> [G, L, D]"""
        rows, length, width = qkv.shape
        query, key, value = qkv.view(rows, length, 3, self.heads, width // 3 // self.heads).permute(2, 0, 3, 1, 4)
        if self.rotary is not None:
            query, key = self.rotary(query), self.rotary(key)
        share = self.share if self.training else 0.0
        mixed = causal_attention(query, key, value, share)
        joined: Tensor = mixed.transpose(1, 2).reshape(rows, length, width // 3)
        return joined


def causal_attention(query: Tensor, key: Tensor, value: Tensor, share: float) -> Tensor:
    """softmax(q k' / sqrt(E)) v below the diagonal, [G, H, L, E] each; `share` of the weights dropped."""
    if query.is_cuda or share == 0:
        return functional.scaled_dot_product_attention(query, key, value, dropout_p=share, is_causal=True)
    # With dropout torch's CPU path draws a double a weight; see kernels.dropout.
    length = query.shape[2]
    ahead = torch.full((length, length), -torch.inf, dtype=query.dtype).triu(1)
    scores = query * query.shape[3] ** -0.5 @ key.transpose(2, 3) + ahead
    return dropout(scores.softmax(-1), share, training=True) @ value


class Block(nn.Module):
    """Attention and feed-forward, each with its residual; normalised before them (`pre`) or after (`post`)."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int,
        activation: Activation,
        norm_kind: Norm,
        placement: Literal["pre", "post"],
        dropout: float,
        attention_dropout: float,
        rotary: Rotary | None,
    ) -> None:
        super().__init__()
        self.placement = placement
        self.attention = CausalAttention(width, heads, dropout=attention_dropout, rotary=rotary)
        self.feed_forward = FeedForward(width, hidden, activation=activation, dropout=dropout)
        self.norms = nn.ModuleList([normalisation(norm_kind, width), normalisation(norm_kind, width)])
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        first, second = self.norms
        if self.placement == "pre":
            tokens = tokens + self.dropout(self.attention(first(tokens), layout))
            tokens = tokens + self.dropout(self.feed_forward(second(tokens)))
        else:
            tokens = first(tokens + self.dropout(self.attention(tokens, layout)))
            tokens = second(tokens + self.dropout(self.feed_forward(tokens)))
        return tokens
