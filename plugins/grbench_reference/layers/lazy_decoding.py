"""OneRec-V2's lazy decoder (arXiv 2508.20900): a context whose keys and values are made once, and blocks that read it.

Shapes: B users, S context tokens, R rows to decode, each of one user, W most rows that a user has, n tokens of a row, m
tokens decoded before them, D width, H heads, G key-value heads, E = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench_reference.kernels.embedding import Dropout
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.layers.cached_decoding import BeamOwners, KeyValues
from grbench_reference.layers.transformer import FeedForward, Rotary


class ContextProcessor(nn.Module):
    """tokens [B, S, D] -> `sets` of keys and values [B, G, S, E], by one linear map for all blocks.

    Keys pass an RMSNorm over their head's width. Unless `separate_values`, values are the keys before these are turned.
    """

    def __init__(
        self, width: int, heads: int, *, kv_heads: int, sets: int, separate_values: bool, rotary: Rotary
    ) -> None:
        super().__init__()
        self.shape, self.rotary = (sets, 1 + int(separate_values), kv_heads, width // heads), rotary
        self.project = nn.Linear(width, sets * (1 + int(separate_values)) * kv_heads * width // heads)
        self.norms = nn.ModuleList(RMSNorm(width // heads) for _ in range(sets))

    def forward(self, tokens: Tensor, places: Tensor) -> tuple[KeyValues, ...]:
        """places: [B, S], of the tokens in their row."""
        made = []
        for sides, norm in zip(self.project(tokens).unflatten(2, self.shape).unbind(2), self.norms, strict=True):
            first, *rest = sides.permute(2, 0, 3, 1, 4)  # [B, G, S, E] each
            keys = norm(first)
            made.append(KeyValues(self.rotary.at(keys, places.unsqueeze(1)), rest[0] if rest else keys))
        return tuple(made)


@dataclass(frozen=True)
class Asked:
    """Which context each row of tokens reads, and where it stands.

    owners: each row's user; places: [R], of each row's first token, behind the context that it reads; seen: what is
    added to the scores of context tokens, or bool, true where they are read: [B, 1 or G, 1, S] where a user's rows
    read the same, else with a row for each query of `LazyAttention`.
    """

    owners: BeamOwners
    places: Tensor
    seen: Tensor

    @classmethod
    def up_to(
        cls,
        rows: Tensor,
        ends: Tensor,
        places: Tensor,
        visible: Tensor,
        bias: Tensor | None,
        *,
        shares: int,
        tokens: int,
    ) -> Asked:
        """Rows that read their user's context up to its token `ends`, such as the positions of a history.

        rows, ends, places: [R]; visible: [B, S] bool, always of the first token; bias: [B, G, S] of scores, or None;
        shares: H / G; tokens: n.
        """
        owners = BeamOwners.of(rows, visible.sum(1))
        count = visible.shape[1]
        read = visible[rows] & (torch.arange(count, device=rows.device) <= ends.unsqueeze(1))
        grid = owners.grid(read.unsqueeze(1))  # [B, 1, W, S]
        grid = grid | (torch.arange(count, device=rows.device) == 0)  # a cell without a row must read something
        grid = grid[:, :, None, :, None].expand(-1, -1, shares, -1, tokens, -1).flatten(2, 4)
        return cls(owners, places, biased(grid, bias))


def biased(read: Tensor, bias: Tensor | None) -> Tensor:
    """read [B, 1, Q, S] bool, bias [B, G, S] or None -> what `Asked.seen` holds."""
    return read if bias is None else torch.where(read, bias.unsqueeze(2), -torch.inf)


class LazyAttention(nn.Module):
    """Cross-attention to the shared context: a query and an output projection, none of keys or values.

    H query heads share G key-value heads.
    """

    def __init__(self, width: int, heads: int, *, kv_heads: int, dropout: float, rotary: Rotary) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.share, self.rotary = heads, kv_heads, dropout, rotary
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor, context: KeyValues, asked: Asked, earlier: int) -> Tensor:
        """tokens [R, n, D], earlier: m -> [R, n, D]. A user's rows are queries of one product with its keys."""
        rows, count, width = tokens.shape
        query = self.query(tokens).view(rows, count, self.heads, width // self.heads).transpose(1, 2)
        places = asked.places.unsqueeze(1) + torch.arange(earlier, earlier + count, device=tokens.device)
        grid = asked.owners.grid(self.rotary.at(query, places.unsqueeze(1)))  # [B, H, W, n, E]
        seen = asked.seen if asked.seen.dtype == torch.bool else asked.seen.to(grid.dtype)
        mixed = functional.scaled_dot_product_attention(
            grid.reshape(len(grid), self.kv_heads, -1, grid.shape[4]),
            context.keys.to(grid.dtype),
            context.values.to(grid.dtype),
            attn_mask=seen,
            dropout_p=self.share if self.training else 0.0,
        )
        out: Tensor = self.out(asked.owners.take(mixed.view_as(grid)).transpose(1, 2).reshape(rows, count, width))
        return out


class LazyBlock(nn.Module):
    """Cross-attention to the context, causal self-attention over the row's own tokens, feed-forward: each after an
    RMSNorm and with its residual."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int,
        hidden: int,
        dropout: float,
        attention_dropout: float,
        rotary: Rotary,
    ) -> None:
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.cross = LazyAttention(width, heads, kv_heads=kv_heads, dropout=attention_dropout, rotary=rotary)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = FeedForward(width, hidden, activation="swiglu", dropout=dropout)
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(3))
        self.dropout = Dropout(dropout)

    def forward(
        self, tokens: Tensor, context: KeyValues, asked: Asked, earlier: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        """tokens [R, n, D], earlier: of the row's m tokens before them, [R, H, m, E], with n = 1, or None ->
        ([R, n, D], keys and values of all m + n)."""
        before, within, last = self.norms
        done = 0 if earlier is None else earlier.keys.shape[2]
        tokens = tokens + self.dropout(self.cross(before(tokens), context, asked, done))
        attended, own = self._self_attention(within(tokens), earlier, done)
        tokens = tokens + self.dropout(attended)
        return tokens + self.dropout(self.feed_forward(last(tokens))), own

    def _self_attention(self, tokens: Tensor, earlier: KeyValues | None, done: int) -> tuple[Tensor, KeyValues]:
        rows, count, width = tokens.shape
        query, key, value = (
            self.qkv(tokens).view(rows, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        places = torch.arange(done, done + count, device=tokens.device)
        query, key = self.rotary.at(query, places), self.rotary.at(key, places)
        if earlier is not None:
            key, value = torch.cat([earlier.keys, key], 2), torch.cat([earlier.values, value], 2)
        # A handful of codes: no dropout of weights, as a row that loses one of two tokens is another task.
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=earlier is None)
        return self.out(mixed.transpose(1, 2).reshape(rows, count, width)), KeyValues(key, value)
