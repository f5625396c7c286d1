"""Thinking tokens: steps of latent reasoning that a sequence model takes after a history, before it predicts.

Shapes: P tokens, G rows of a group, S their length, D width, H heads, E = D / H.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grbench_reference.features.parts import TABLE_SPREAD
from grbench_reference.kernels.embedding import Dropout
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.layers.token_packing import Layout
from grbench_reference.layers.transformer import FeedForward, width_of_heads


class ThinkingTokens(nn.Module):
    """`count` tokens behind every position, one after another: each is the one before it (the first: the position's
    state) plus a vector of its own, and passes one block that attends to the states up to the position and to the
    position's thinking tokens so far.

    Every position of a history has thinking tokens of its own, which no other position sees.
    """

    def __init__(self, width: int, heads: int, *, count: int, hidden: int, dropout: float) -> None:
        super().__init__()
        width_of_heads(width, heads, rotary=False)
        self.heads = heads
        self.tokens = nn.Parameter(torch.empty(count, width).normal_(std=TABLE_SPREAD))
        self.attention_norm, self.feed_forward_norm, self.last_norm = RMSNorm(width), RMSNorm(width), RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = FeedForward(width, hidden, activation="swiglu", dropout=dropout)
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, layout: Layout) -> Tensor:
        """states [P, D] -> [P, D], the last thinking token of each position."""
        return torch.cat([group.tokens(self._think(group.grid(states))) for group in layout.groups])

    def _think(self, states: Tensor) -> Tensor:
        """[G, S, D] -> [G, S, D]"""
        length = states.shape[1]
        _, keys, values = self._projected(states)
        hidden = torch.ones(length, length, dtype=torch.bool, device=states.device).triu(1)
        own_keys: list[Tensor] = []
        own_values: list[Tensor] = []
        thought = states
        for token in self.tokens:
            thought = thought + token
            query, key, value = self._projected(thought)
            own_keys.append(key)
            own_values.append(value)
            of_history = (query @ keys.transpose(2, 3)).masked_fill(hidden, -torch.inf)
            of_thoughts = torch.stack([(query * each).sum(3) for each in own_keys], 3)
            weights = torch.cat([of_history, of_thoughts], 3).softmax(3).to(values.dtype)
            mixed = weights[..., :length] @ values
            for number, each in enumerate(own_values):
                mixed = mixed + weights[..., length + number, None] * each
            thought = thought + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
            thought = thought + self.dropout(self.feed_forward(self.feed_forward_norm(thought)))
        normed: Tensor = self.last_norm(thought)
        return normed

    def _projected(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens [G, S, D] -> queries, which are scaled, keys and values, [G, H, S, E] each."""
        qkv = self.qkv(self.attention_norm(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        return query * query.shape[-1] ** -0.5, key, value
