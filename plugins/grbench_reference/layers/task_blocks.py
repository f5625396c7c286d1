"""Transformer blocks for a history, for fake items that all users share, and for task tokens behind each event.

Shapes: B users, P events' tokens, F fake items, Q places with task tokens, n tasks, D width, H heads, E = D / H, G rows
of a group padded to length L.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from grbench_reference.kernels.embedding import Dropout
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.kernels.rotary import rotate_qkv
from grbench_reference.layers.attention_parts import Part, attend
from grbench_reference.layers.cached_decoding import KeyValues
from grbench_reference.layers.token_packing import Layout
from grbench_reference.layers.transformer import FeedForward, Rotary, causal_attention, with_key_bias


@dataclass(frozen=True)
class TaskLayout:
    """events: the layout of the history's tokens, P. Q = P places with task tokens: one behind each of these tokens;
    with `newest`, whose events are a grid of rows, Q = B: one behind each row's newest."""

    events: Layout
    fakes: int
    tasks: int
    newest: bool

    @property
    def counts(self) -> list[int]:
        """Of events' tokens, fake items and task tokens."""
        events = len(self.events.row)
        return [events, self.fakes, (len(self.events.last) if self.newest else events) * self.tasks]

    def places(self) -> Tensor:
        """-> [Q], for rotary positions: the one after the event that the tasks stand behind."""
        return self.newest_places() + 1 if self.newest else self.events.place + 1

    def newest_places(self) -> Tensor:
        """-> [B], the place of each row's newest token, -1 where it has none."""
        return torch.where(self.events.last < 0, -1, self.events.last - self.events.first)


class TaskBlockOutput(NamedTuple):
    """tokens: [P + F + Q n, D], those of events, fake items and tasks; key_values: of events [P, H, E'], which carry
    the bias where there is one, and of tasks [Q, n, H, E]."""

    tokens: Tensor
    events: KeyValues
    tasks: KeyValues


class TaskBlock(nn.Module):
    """Attention and SwiGLU, each after an RMSNorm and with its residual, for all three kinds of tokens alike.

    An event attends to its row's events up to itself; a fake item to itself; a task token to the events up to its
    place, all fake items, and its place's tasks up to itself.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int,
        dropout: float,
        attention_dropout: float,
        rotary: Rotary,
        key_bias: nn.Module | None,
    ) -> None:
        """key_bias: actions of events [P] -> [P, H], added to the scores of each event."""
        super().__init__()
        self.heads, self.share, self.rotary, self.key_bias = heads, attention_dropout, rotary, key_bias
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = FeedForward(width, hidden, activation="swiglu", dropout=dropout)
        self.attention_norm, self.feed_forward_norm = RMSNorm(width), RMSNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, layout: TaskLayout, actions: Tensor) -> TaskBlockOutput:
        """tokens [P + F + Q n, D], actions [P] of the events."""
        qkv = self.qkv(self.attention_norm(tokens)).view(len(tokens), 3, self.heads, -1)
        of_events, of_fakes, of_tasks = qkv.split(layout.counts)
        bias = None if self.key_bias is None else self.key_bias(actions)
        attended, events = self._events(of_events, layout.events, bias)
        mixed, tasks = self._tasks(of_tasks, events, KeyValues(of_fakes[:, 1], of_fakes[:, 2]), layout)
        everything = torch.cat([attended.flatten(1), of_fakes[:, 2].flatten(1), mixed.flatten(0, 1).flatten(1)])
        tokens = tokens + self.dropout(self.out(everything))
        return TaskBlockOutput(tokens + self.dropout(self.feed_forward(self.feed_forward_norm(tokens))), events, tasks)

    def _events(self, qkv: Tensor, layout: Layout, bias: Tensor | None) -> tuple[Tensor, KeyValues]:
        """qkv [P, 3, H, E], bias [P, H] -> ([P, H, E], their keys and values)."""
        query, key, value = self._turned(qkv, layout.place).unbind(1)
        if bias is not None:
            query, key = with_key_bias(query, key, bias)
        attended = []
        for group in layout.groups:
            query_grid, key_grid, value_grid = (group.grid(each).transpose(1, 2) for each in (query, key, value))
            mixed = causal_attention(query_grid, key_grid, value_grid, self.share if self.training else 0.0)
            attended.append(group.tokens(mixed.transpose(1, 2)))
        return torch.cat(attended), KeyValues(key, value)

    def _tasks(self, qkv: Tensor, events: KeyValues, fakes: KeyValues, layout: TaskLayout) -> tuple[Tensor, KeyValues]:
        """qkv [Q n, 3, H, E] -> ([Q, n, H, E], their keys and values)."""
        turned = self._turned(qkv, layout.places().repeat_interleave(layout.tasks))
        # Fake items have no place: queries of them are not turned.
        shape = (-1, layout.tasks, *qkv.shape[2:])
        unturned, query, key, value = (each.reshape(shape) for each in (qkv[:, 0], *turned.unbind(1)))
        causal = torch.ones(layout.tasks, layout.tasks, dtype=torch.bool, device=query.device).tril().unsqueeze(1)
        found = []
        for group in layout.events.groups:
            own = [query, unturned, key, value]
            column = torch.arange(group.length, device=query.device)
            if layout.newest:  # the one group has a row a user
                query_grid, unturned_grid, own_keys, own_values = (each.unsqueeze(1) for each in own)
                visible = column <= layout.newest_places()[:, None, None, None, None]
            else:
                query_grid, unturned_grid, own_keys, own_values = (group.grid(each) for each in own)
                visible = column <= column[:, None, None, None]
            keys, values = (group.grid(each) for each in events)
            mixed = attend(
                [
                    Part(widened(query_grid, keys.shape[-1]), "glhe", keys, values, visible),
                    Part(unturned_grid, "fhe", fakes.keys, fakes.values),
                    Part(query_grid, "gwmhe", own_keys, own_values, causal),
                ],
                self.share,
                training=self.training,
            )
            found.append(mixed.squeeze(1) if layout.newest else group.tokens(mixed))
        return torch.cat(found), KeyValues(key, value)

    def _turned(self, qkv: Tensor, places: Tensor) -> Tensor:
        return rotate_qkv(qkv, self.rotary.cos[places], self.rotary.sin[places])


def widened(query: Tensor, width: int) -> Tensor:
    """query [..., E] -> [..., width], for keys that carry a bias (`with_key_bias`) where they are wider."""
    more = width - query.shape[-1]
    if not more:
        return query
    return pad(pad(query, (0, more - 1)), (0, 1), value=1.0)
