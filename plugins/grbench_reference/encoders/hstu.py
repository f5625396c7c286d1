"""HSTU: Actions Speak Louder than Words, Zhai et al. 2024 (arXiv 2402.17152, section 3), over a user's history.

Shapes: P tokens, D width, G rows of a group padded to length L, H heads, E = D / H, K time buckets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from grbench.data.training_data import TrainingData
from grbench.registry.option_types import Count, Share
from grbench.types import Batch, Codes
from grbench_reference.encoders.history_encoder import HistoryEncoder, HistoryOptions, PositionEncoding
from grbench_reference.features.parts import TABLE_SPREAD
from grbench_reference.kernels.embedding import Dropout
from grbench_reference.kernels.pointwise_attention import pieces, pointwise_attention
from grbench_reference.layers.token_packing import Layout
from grbench_reference.layers.transformer import Norm, Rotary, normalisation, width_of_heads

NORM_EPSILON = 1e-6
"""Of all normalisations, as in the released code. At initialisation what a token attends to has a variance of about
1e-5, so that torch's default of 1e-5 would take away a part of it."""
YEAR = 365 * 24 * 3600.0
"""Seconds; times further apart share the last bucket."""


def time_buckets(times: Tensor, known: Tensor, count: int) -> Tensor:
    """times [G, L] in seconds, known [G, L] bool -> [G, L, L] uint8, the bucket of the time from key to query.

    `count` buckets, evenly on a log scale from a second to a year; bucket `count` is that of a key without a time. A
    byte a pair: made once for all heads and blocks.
    """
    rows, length = times.shape
    buckets = torch.empty(rows, length, length, dtype=torch.uint8, device=times.device)
    for some in pieces(times, pairs=length * length):
        apart = (times[some].unsqueeze(2) - times[some].unsqueeze(1)).clamp_(min=0).float()
        buckets[some] = apart.log1p_().mul_(count / math.log1p(YEAR)).clamp_(max=count - 1).to(torch.uint8)
    return buckets.masked_fill_(~known.unsqueeze(1), count)


class HSTUBlock(nn.Module):
    """tokens [P, D] -> [P, D]: attention times an elementwise gate, with a residual; there is no feed-forward layer.

    U (the gate), V, Q, K = SiLU(Linear(norm(x))); y = x + Linear(dropout(U * norm(SiLU(QK' / sqrt(E) + bias) V / n))).
    Without `attended_norm`, neither that norm nor the division by n.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        length: int,
        norm: Norm,
        dropout: float,
        rotary: Rotary | None,
        position_bias: bool,
        buckets: int | None,
        key_bias: nn.Module | None,
        attended_norm: bool,
    ) -> None:
        """length: the most tokens a row has; buckets: of time, None = no time bias."""
        super().__init__()
        self.heads, self.rotary, self.key_bias = heads, rotary, key_bias
        self.norm = normalisation(norm, width, epsilon=NORM_EPSILON)
        self.attended_norm = normalisation(norm, width, epsilon=NORM_EPSILON) if attended_norm else None
        self.uvqk, self.out = nn.Linear(width, 4 * width), nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.position_bias = self.time_bias = None
        if position_bias:  # by how many tokens the key lies back
            self.position_bias = nn.Parameter(torch.empty(length, heads).normal_(std=TABLE_SPREAD))
        if buckets is not None:
            self.time_bias = nn.Parameter(torch.empty(buckets + 1, heads).normal_(std=TABLE_SPREAD))

    def forward(self, tokens: Tensor, layout: Layout, actions: Tensor, buckets: Sequence[Tensor | None]) -> Tensor:
        """actions: [P] of the tokens; buckets: each group's [G, L, L]."""
        width = tokens.shape[1]
        gate, vqk = torch.split(functional.silu(self.uvqk(self.norm(tokens))), [width, 3 * width], 1)
        of_key = None if self.key_bias is None else self.key_bias(actions)
        attended = [
            group.tokens(self._attend(group.grid(vqk), None if of_key is None else group.grid(of_key), pairs))
            for group, pairs in zip(layout.groups, buckets, strict=True)
        ]
        values = torch.cat(attended)
        if self.attended_norm is not None:
            values = self.attended_norm(values)
        mixed: Tensor = self.out(self.dropout(gate * values))
        return tokens + mixed

    def _attend(self, vqk: Tensor, of_key: Tensor | None, buckets: Tensor | None) -> Tensor:
        """[G, L, 3 D], [G, L, H], [G, L, L] -> [G, L, D]"""
        rows, length, width = vqk.shape
        value, query, key = vqk.view(rows, length, 3, self.heads, width // 3 // self.heads).permute(2, 0, 3, 1, 4)
        if self.rotary is not None:
            query, key = self.rotary(query), self.rotary(key)
        position = None
        if self.position_bias is not None:
            place = torch.arange(length, device=vqk.device)
            back = (place.unsqueeze(1) - place).clamp(min=0)
            position = functional.embedding(back, self.position_bias).permute(2, 0, 1)
        attended = pointwise_attention(
            query,
            key,
            value,
            position=position,
            of_key=None if of_key is None else of_key.transpose(1, 2),
            time=self.time_bias,
            buckets=buckets,
            mean=self.attended_norm is not None,
        )
        return attended.transpose(1, 2).reshape(rows, length, width // 3)


class HSTU(HistoryEncoder):
    """User token, then one token an event, through HSTU blocks; items by feature fusion.

    Attention weights are SiLU of the scores instead of a softmax, so that how often something happened is not
    normalised away, and a block is one gated layer. Differs from the released code: scores are divided by the square
    root of a head's width; weights are divided by the number of tokens that a query sees, not by the longest row's (up
    to epsilon the norm behind undoes either, but short histories would fade into it); biases are learned for each head;
    the time of a pair runs from its key to its query, not to the event after it, which is unknown at test.

    Args:
        width: of tokens, blocks and the vectors that are compared.
        blocks: how many (released code, MovieLens: 2; large: 8).
        heads: of each block's attention (released code, MovieLens: 1; large: 2).
        dropout: of what blocks add (released code, MovieLens: 0.2).
        embedding_dropout: of the tokens that enter the first block; null = as dropout.
        history_length: newest events read.
        norm: kind of normalisation.
        attended_norm: normalise what a token has attended to before it is gated; false = the plain sum of the weighted
            values (OnePiece).
        positions: learned = a vector a place, counted from the oldest event (released code); learned_from_end = counted
            back from the newest, which in training tells each state how many events follow; rotary = turns queries and
            keys; none.
        position_bias: a learned bias of scores by how many tokens lie between, for each head.
        time_bias: a learned bias of scores by how much time lies between, for each head; nothing where the dataset has
            no times.
        time_buckets: of that time, evenly on a log scale from a second to a year (64 are as fine as the released 128,
            which reach further).
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        width: Count = 64,
        blocks: Count = 2,
        heads: Count = 1,
        dropout: Share = 0.2,
        embedding_dropout: Share | None = None,
        history_length: Count = 100,
        norm: Norm = "layernorm",
        attended_norm: bool = True,
        positions: PositionEncoding = "learned",
        position_bias: bool = True,
        time_bias: bool = True,
        time_buckets: Annotated[int, Field(ge=1, le=255)] = 64,
        history: HistoryOptions = HistoryOptions(),
    ) -> None:
        head_width = width_of_heads(width, heads, rotary=positions == "rotary")
        super().__init__(
            data,
            codes,
            history,
            width=width,
            history_length=history_length,
            dropout=dropout if embedding_dropout is None else embedding_dropout,
            last_norm=normalisation(norm, width, epsilon=NORM_EPSILON),
            positions=positions,
        )
        self.buckets = time_buckets if time_bias and data.catalogue.has_times else None
        self.blocks = nn.ModuleList(
            HSTUBlock(
                width,
                heads,
                length=self.length,
                norm=norm,
                dropout=dropout,
                rotary=Rotary(head_width, self.length) if positions == "rotary" else None,
                position_bias=position_bias,
                buckets=self.buckets,
                key_bias=self.key_bias(heads),
                attended_norm=attended_norm,
            )
            for _ in range(blocks)
        )

    def mix(self, tokens: Tensor, batch: Batch, layout: Layout) -> Tensor:
        """tokens [P, D] -> [P, D], through the blocks."""
        actions, buckets = layout.take(batch.actions), self._buckets(batch, layout)
        for block in self.blocks:
            tokens = block(tokens, layout, actions, buckets)
        return tokens

    def _buckets(self, batch: Batch, layout: Layout) -> list[Tensor | None]:
        """[G, L, L] of each group; a user's token has no time."""
        if self.buckets is None:
            return [None] * len(layout.groups)
        times, known = layout.take(batch.times), layout.events >= 0
        return [time_buckets(group.grid(times), group.grid(known), self.buckets) for group in layout.groups]
