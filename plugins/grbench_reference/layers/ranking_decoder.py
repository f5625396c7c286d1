"""A decoder of one layer that scores candidates, each by itself, with the keys and values that generation has left.

Shapes: B users, T history length, W places of a row, C candidates of a place, L columns of events, A actions, n task
tokens, D width, H heads, E = D / H.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from grbench_reference.kernels.embedding import Dropout
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.layers.attention_parts import Part, attend
from grbench_reference.layers.cached_decoding import KeyValues
from grbench_reference.layers.task_blocks import widened
from grbench_reference.layers.transformer import FeedForward, Rotary


class Generation(NamedTuple):
    """What generation leaves to the losses and to the ranking stage. W is T + 1, the columns of `batch.all_targets`, or
    1, the newest event.

    states: [B, W, A + 1, D], of the tasks; events: keys and values [B, L, H, E] of the last block; tasks: likewise
    [B, W, n, H, E]; visible: [B, W, L] bool, the events up to the place; places: [B, W], for rotary positions.
    """

    states: Tensor
    events: KeyValues
    tasks: KeyValues
    visible: Tensor
    places: Tensor

    def at(self, columns: Tensor) -> Generation:
        """columns [B, V] of W -> the same at V places."""
        rows = torch.arange(len(columns), device=columns.device).unsqueeze(1)
        tasks = KeyValues(*(each[rows, columns] for each in self.tasks))
        return Generation(
            self.states[rows, columns], self.events, tasks, self.visible[rows, columns], self.places[rows, columns]
        )


class RankingDecoder(nn.Module):
    """candidates [B, W, C, D] -> what is added to their scores [B, W, C], 0 before training.

    A candidate attends to its row's events up to its place and to its place's tasks, by the keys and values of
    generation's last block, and to itself; not to other candidates, so that its score depends on no other.
    """

    def __init__(
        self, width: int, heads: int, *, hidden: int, dropout: float, attention_dropout: float, rotary: Rotary
    ) -> None:
        super().__init__()
        self.heads, self.share, self.rotary = heads, attention_dropout, rotary
        self.kind = nn.Parameter(torch.zeros(width))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = FeedForward(width, hidden, activation="swiglu", dropout=dropout)
        self.attention_norm, self.feed_forward_norm, self.last_norm = RMSNorm(width), RMSNorm(width), RMSNorm(width)
        self.score = nn.Parameter(torch.zeros(width))
        self.dropout = Dropout(dropout)

    def forward(self, candidates: Tensor, context: Generation) -> Tensor:
        """context: of W places of each row."""
        events, tasks = context.events, context.tasks
        tokens = candidates + self.kind
        query, key, value = (
            each.view(*each.shape[:-1], self.heads, -1) for each in self.qkv(self.attention_norm(tokens)).chunk(3, -1)
        )
        turned = self.rotary.at(query, context.places[:, :, None, None])
        mixed = attend(
            [
                Part(widened(turned, events.keys.shape[-1]), "glhe", *events, context.visible[:, :, None, None]),
                Part(turned, "gwmhe", *tasks),
                Part(query, "gwnshe", key.unsqueeze(3), value.unsqueeze(3)),
            ],
            self.share,
            training=self.training,
        )
        tokens = tokens + self.dropout(self.out(mixed.flatten(3)))
        tokens = tokens + self.dropout(self.feed_forward(self.feed_forward_norm(tokens)))
        scores: Tensor = self.last_norm(tokens) @ self.score
        return scores
