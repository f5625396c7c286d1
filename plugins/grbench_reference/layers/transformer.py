"""Transformer blocks, and the normalisation, feed-forward layer and attention that they consist of.

Shapes: P tokens, D width, G rows of a group padded to length L, H heads, E = D / H width of a head.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench.errors import SuiteError
from grbench_reference.kernels.dropout_attention import dropout_attention
from grbench_reference.kernels.embedding import Dropout
from grbench_reference.layers.token_packing import Group, Grouped

Norm = Literal["layernorm", "rmsnorm"]
Activation = Literal["relu", "gelu", "swiglu"]


def normalisation(kind: Norm, width: int, *, epsilon: float | None = None) -> nn.Module:
    """A normalisation over the last dimension. epsilon: added to the variance; None = 1e-5 for layernorm, 1e-6 for
    rmsnorm."""
    if kind == "layernorm":
        return nn.LayerNorm(width, eps=1e-5 if epsilon is None else epsilon)
    return nn.RMSNorm(width, eps=1e-6 if epsilon is None else epsilon)


def width_of_heads(width: int, heads: int, *, rotary: bool) -> int:
    """Of each head. Raises SuiteError where heads cannot share the width; rotary positions turn pairs of numbers."""
    if width % (2 * heads if rotary else heads):
        why = f"{2 * heads}, since rotary positions need an even width a head" if rotary else f"{heads}"
        raise SuiteError(
            f"encoder.heads: {heads} heads cannot share a width of {width}; width must be a multiple of {why}"
        )
    return width // heads


class FeedForward(nn.Module):
    """tokens [P, D] -> [P, D]. `swiglu` is Shazeer's gated form (arXiv 2002.05202), with its three matrices."""

    def __init__(self, width: int, hidden: int, *, activation: Activation, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(width, 2 * hidden if activation == "swiglu" else hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
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
        return _turned(values, self.cos[: values.shape[2]], self.sin[: values.shape[2]])

    def at(self, values: Tensor, places: Tensor) -> Tensor:
        """values [..., E], turned by `places`, int64 of any shape that broadcasts to [...]."""
        return _turned(values, self.cos[places], self.sin[places])


def _turned(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos.to(values.dtype), sin.to(values.dtype)
    first, second = values.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class CausalAttention(nn.Module):
    """Self-attention of every token over its row's tokens up to itself, or those that its group says: tokens [P, D] ->
    [P, D].

    qk_norm: queries and keys pass an RMSNorm over their head's width (arXiv 2302.05442).
    key_bias: actions of keys [P] -> [P, H], added to the scores of each key.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        dropout: float,
        rotary: Rotary | None,
        qk_norm: bool = False,
        bias: bool = True,
        key_bias: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.share = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.rotary, self.key_bias = rotary, key_bias
        self.query_norm = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else None
        self.key_norm = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else None

    def forward(self, tokens: Tensor, layout: Grouped, actions: Tensor) -> Tensor:
        """actions [P] of the tokens, used where there is a key_bias."""
        qkv = self.qkv(tokens)
        bias = None if self.key_bias is None else self.key_bias(actions)
        attended = [
            group.tokens(self._attend(group.grid(qkv), None if bias is None else group.grid(bias), group))
            for group in layout.groups
        ]
        out: Tensor = self.out(torch.cat(attended))
        return out

    def _attend(self, qkv: Tensor, bias: Tensor | None, group: Group) -> Tensor:
        """[G, L, 3 D], [G, L, H] -> [G, L, D]"""
        rows, length, width = qkv.shape
        query, key, value = qkv.view(rows, length, 3, self.heads, width // 3 // self.heads).permute(2, 0, 3, 1, 4)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.rotary is not None and group.places is not None:
            query, key = self.rotary.at(query, group.places), self.rotary.at(key, group.places)
        elif self.rotary is not None:
            query, key = self.rotary(query), self.rotary(key)
        if bias is not None:
            query, key = with_key_bias(query, key, bias.transpose(1, 2))
        share = self.share if self.training else 0.0
        mixed = causal_attention(query, key, value, share, group.visible)
        joined: Tensor = mixed.transpose(1, 2).reshape(rows, length, width // 3)
        return joined


def with_key_bias(query: Tensor, key: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """query, key [..., E], bias [...] -> both with further columns, so that q k' / sqrt(E) includes each key's bias.

    The attention kernel then needs no mask of scores, and a KV cache holds the bias.
    """
    more = 8 if query.is_cuda else 1  # the GPU's fused kernels want widths that 8 divides
    column = (bias * query.shape[-1] ** 0.5).to(key.dtype).unsqueeze(-1)
    key = torch.cat([functional.pad(key, (0, more - 1)), column], -1)
    return functional.pad(functional.pad(query, (0, more - 1)), (0, 1), value=1.0), key


def causal_attention(query: Tensor, key: Tensor, value: Tensor, share: float, visible: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(E)) v below the diagonal, or where visible [L, L] is true, [G, H, L, E] each; `share` of the
    weights dropped.

    Queries and keys may be wider than values, by what `with_key_bias` added.
    """
    width = value.shape[3]
    if query.is_cuda or share == 0:
        if query.shape[3] > width:  # the fused kernels want one width
            value = functional.pad(value, (0, query.shape[3] - width))
        mixed = functional.scaled_dot_product_attention(
            query, key, value, visible, dropout_p=share, is_causal=visible is None, scale=width**-0.5
        )
        return mixed[..., :width]
    return dropout_attention(query, key, value, share, visible)


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each with its residual; normalised before them (`pre`) or after (`post`)."""

    def __init__(
        self,
        width: int,
        attention: nn.Module,
        *,
        hidden: int,
        activation: Activation,
        norm_kind: Norm,
        placement: Literal["pre", "post"],
        dropout: float,
        bias: bool,
    ) -> None:
        """attention: tokens [P, D], layout, actions [P] -> [P, D]; `CausalAttention` or another mixer."""
        super().__init__()
        self.placement = placement
        self.attention = attention
        self.feed_forward = FeedForward(width, hidden, activation=activation, dropout=dropout, bias=bias)
        self.norms = nn.ModuleList([normalisation(norm_kind, width), normalisation(norm_kind, width)])
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, layout: Grouped, actions: Tensor) -> Tensor:
        first, second = self.norms
        if self.placement == "pre":
            tokens = tokens + self.dropout(self.attention(first(tokens), layout, actions))
            tokens = tokens + self.dropout(self.feed_forward(second(tokens)))
        else:
            tokens = first(tokens + self.dropout(self.attention(tokens, layout, actions)))
            tokens = second(tokens + self.dropout(self.feed_forward(tokens)))
        return tokens
