"""Rec2PM: recurrent preference memory, Chen et al. 2026 (arXiv 2602.11605): a history in segments, each of which gets
what came before it as a few memory tokens.

Shapes: B users, T history length, P tokens, U tokens of a user (1 with a user token, else 0), S events of a segment, K
segments, F segments that the batch is long enough to fill, M memory tokens, D width, R rows, each of one user and
segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import averaged
from grbench.registry.option_types import Count, Natural
from grbench.types import Batch, Codes
from grbench_reference.encoders.causal_transformer import TransformerOptions, transformer_blocks
from grbench_reference.encoders.history_encoder import HistoryEncoder, HistoryOptions
from grbench_reference.encoders.one_pass import OnePass
from grbench_reference.features.parts import TABLE_SPREAD
from grbench_reference.layers.token_packing import Grids, Group, Layout
from grbench_reference.layers.transformer import normalisation


@dataclass(frozen=True)
class Segments:
    """A batch's tokens, cut every S events from the oldest on.

    users: [B, U, D]; events: [B, K, S, D]; actions: [B, K, S]; full: [B, F] bool, which segments have all S events.
    some: [R], places in the flattened [B, K] of the segments to encode; long: the rows to make references of. On a CPU
    where there is much padding, these are the segments with events and each row's first, and the rows with a full
    segment; otherwise all, so that nothing depends on the lengths.
    """

    users: Tensor
    events: Tensor
    actions: Tensor
    full: Tensor
    some: Tensor
    long: Tensor

    @classmethod
    def of(cls, tokens: Tensor, batch: Batch, layout: Layout, size: int) -> Segments:
        """tokens [P, D] of the layout; size: S."""
        rows, length = layout.shape
        first, count = int(layout.user_token), max(1, -(-length // size))
        cells = _cells(layout, first + length)
        grid = tokens.new_zeros(rows * (first + length), tokens.shape[1]).index_copy(0, cells, tokens)
        actions = batch.actions.new_zeros(len(grid)).index_copy(0, cells, layout.take(batch.actions))
        users, events = torch.split(grid.view(rows, first + length, -1), [first, length], 1)
        lengths = torch.where(layout.last < 0, 0, layout.last - layout.first + 1 - first).unsqueeze(1)
        starts = torch.arange(count, device=lengths.device) * size
        begun, full = (starts == 0) | (starts < lengths), (starts + size <= lengths)[:, : length // size]
        packed = len(tokens) < len(grid)
        more = count * size - length
        return cls(
            users,
            pad(events, (0, 0, 0, more)).view(rows, count, size, -1),
            pad(actions.view(rows, first + length)[:, first:], (0, more)).view(rows, count, size),
            full,
            _places(begun.flatten(), packed),
            _places(full.any(1), packed),
        )


def _places(wanted: Tensor, packed: bool) -> Tensor:
    """wanted [n] bool -> its true places if packed, else all."""
    every = torch.arange(len(wanted), device=wanted.device)
    return every[wanted] if packed else every


def _cells(layout: Layout, width: int) -> Tensor:
    """-> [P], the token's place in a flattened grid of rows x width."""
    return layout.row * width + layout.place


class PreferenceMemory(HistoryEncoder):
    """`causal_transformer` over segments of the history: each reads the user's token, the memory that the segment
    before has left, and its own events, and writes a memory for the next.

    As in the paper: memories are a few tokens, kept as vectors and not as keys and values. A training step has two
    passes of the same blocks. The first reads the whole history at once, under a mask: after each segment, tokens that
    see all events up to there become its reference memory. The second encodes all segments at once, each with the
    reference memory of the one before; the losses are computed from its states, and what it writes is pulled to the
    reference by squared error. At search there is one pass, segment by segment, each with the memory that the one
    before has written, so that a stored memory and new events are enough. Width 64, 4 memory tokens.

    Ours: segments of 25 events, since a history has 100 here (paper: 200); the weight of the squared error; that the
    reference gets no gradient from it, and learns as what the next segment reads; the first segment reads a memory of
    zeros; memories pass a normalisation of their own, and learned vectors tell their tokens apart; each segment begins
    with the user's token; places of rotary positions are counted within a segment.

    Args:
        width: of tokens, blocks and the vectors that are compared (paper: 64).
        memories: memory tokens (paper: 4); 0 = none, each segment is encoded by itself.
        segment: events of a segment (paper: 200).
        memory_weight: of the squared error between written and reference memories, a mean over their numbers, beside
            the losses.
        teacher_forcing: train as described; false = train as at search, one segment after another through all
            memories, without reference memories.
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        memories: Natural = 4,
        segment: Count = 25,
        memory_weight: Annotated[float, Field(ge=0)] = 1.0,
        teacher_forcing: bool = True,
        transformer: TransformerOptions = TransformerOptions(
            width=64,
            blocks=2,
            heads=2,
            norm="rmsnorm",
            norm_placement="pre",
            activation="swiglu",
            positions="rotary",
        ),
        history: HistoryOptions = HistoryOptions(),
    ) -> None:
        super().__init__(
            data,
            codes,
            history,
            width=transformer.width,
            history_length=transformer.history_length,
            dropout=transformer.dropout_of_tokens,
            last_norm=normalisation(transformer.norm, transformer.width),
            positions=transformer.positions,
        )
        self.memories, self.segment = memories, segment
        self.memory_weight, self.teacher_forcing = memory_weight, teacher_forcing
        whole_segments = -(-transformer.history_length // segment) * segment
        self.blocks = transformer_blocks(
            transformer, length=int(self.user_token) + 2 * memories + whole_segments, key_bias=self.key_bias
        )
        if memories:
            self.readers = nn.Parameter(torch.empty(memories, transformer.width).normal_(std=TABLE_SPREAD))
            self.writers = nn.Parameter(torch.empty(memories, transformer.width).normal_(std=TABLE_SPREAD))
            self.memory_norm = normalisation(transformer.norm, transformer.width)
        self._memory_pass: OnePass[Tensor] = OnePass()

    @contextmanager
    def one_pass(self) -> Iterator[Callable[[], Mapping[str, Tensor]]]:
        """Inside, a batch's histories are encoded once, however many losses need them. Yields a function that gives the
        squared error of the step's memories, where they have references."""
        with super().one_pass(), self._memory_pass.open():
            yield self._own_terms

    def mix(self, tokens: Tensor, batch: Batch, layout: Layout) -> Tensor:
        """tokens [P, D] -> [P, D], through the blocks, each with its segment."""
        segments = Segments.of(tokens, batch, layout, self.segment)
        if self.training and self.teacher_forcing and self.memories:
            references = self.references(segments)
            states, written = self.in_parallel(segments, references)
            self._memory_pass.put(batch, squared_error(written, references, segments.full))
        elif self.memories:
            states = self.one_by_one(segments)
        else:
            states, _ = self.in_parallel(segments, segments.events[:, :, :0])  # none
        rows, count, size = segments.actions.shape
        users, events = torch.split(states, [states.shape[2] - size, size], 2)
        grid = torch.cat([users[:, 0], events.reshape(rows, count * size, -1)], 1)
        return grid.flatten(0, 1)[_cells(layout, grid.shape[1])]

    def references(self, segments: Segments) -> Tensor:
        """-> [B, F, M, D], the memory after each segment, of one pass over the whole history; zero for rows left
        out."""
        rows, full = segments.full.shape
        size, long, device = segments.events.shape[2], segments.long, segments.events.device
        first, read = segments.users.shape[1], segments.users.shape[1] + full * size
        memories = segments.events.new_zeros(rows, full, self.memories, self.width)
        if not full * len(long):
            return memories
        # The writers of all segments come last. Each sees the events up to its segment's end, and its segment's writers
        # up to itself; no event sees a writer.
        segment = torch.arange(full, device=device).repeat_interleave(self.memories)
        ends = first + (segment + 1) * size
        seen = torch.arange(read, device=device) < ends.unsqueeze(1)
        own = (segment == segment.unsqueeze(1)).tril()
        events = seen.new_ones(read, read).tril()
        visible = torch.cat([pad(events, (0, len(segment))), torch.cat([seen, own], 1)])
        # At the places where a segment's second pass has them: readers stand between the user and the events.
        column, writer = torch.arange(read, device=device), torch.arange(len(segment), device=device)
        places = torch.cat([column + self.memories * (column >= first), ends + self.memories + writer % self.memories])
        history = [segments.users[long], segments.events[long, :full].flatten(1, 2)]
        writers = self.writers.to(history[1].dtype).repeat(full, 1).expand(len(long), -1, -1)
        actions = pad(segments.actions[long, :full].flatten(1), (first, len(segment)))
        mixed = self._blocks(torch.cat([*history, writers], 1), actions, visible=visible, places=places)
        written: Tensor = self.memory_norm(mixed[:, read:]).view(len(long), *memories.shape[1:])
        return memories.to(written.dtype).index_copy(0, long, written)

    def in_parallel(self, segments: Segments, memories: Tensor) -> tuple[Tensor, Tensor]:
        """memories [B, F or K, M, D], after each segment; a segment reads that of the one before -> (states
        [B, K, U + S, D], written memories [B, K, M, D]); zero for segments that are not encoded."""
        rows, count, _ = segments.actions.shape
        before = pad(memories, (0, 0, 0, 0, 1, 0))[:, :count]
        some = segments.some
        encoded = self.of_segment(
            segments.users[some // count],
            before.flatten(0, 1)[some],
            segments.events.flatten(0, 1)[some],
            segments.actions.flatten(0, 1)[some],
        )
        states, written = (
            each.new_zeros(rows * count, *each.shape[1:]).index_copy(0, some, each).view(rows, count, *each.shape[1:])
            for each in encoded
        )
        return states, written

    def one_by_one(self, segments: Segments) -> Tensor:
        """-> states [B, K, U + S, D], each segment with the memory that the one before has written."""
        memory = segments.events[:, 0, :1].new_zeros(len(segments.users), self.memories, self.width)
        states = []
        for events, actions in zip(segments.events.unbind(1), segments.actions.unbind(1), strict=True):
            # What a segment that is not full writes is read by none that has events.
            of_segment, memory = self.of_segment(segments.users, memory, events, actions)
            states.append(of_segment)
        return torch.stack(states, 1)

    def of_segment(self, users: Tensor, memory: Tensor, events: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """users [R, U, D], memory [R, M, D] of the events before, events [R, S, D], actions [R, S] -> (states
        [R, U + S, D], the memory after these events [R, M, D])."""
        first, size = users.shape[1], events.shape[1]
        if not self.memories:
            return self._blocks(torch.cat([users, events], 1), pad(actions, (first, 0))), memory
        readers, writers = self.readers.to(events.dtype), self.writers.to(events.dtype)
        tokens = torch.cat([users, memory + readers, events, writers.expand(len(events), -1, -1)], 1)
        mixed = self._blocks(tokens, pad(actions, (first + self.memories, self.memories)))
        users, _, events, written = torch.split(mixed, [first, self.memories, size, self.memories], 1)
        return torch.cat([users, events], 1), self.memory_norm(written)

    def _blocks(
        self, tokens: Tensor, actions: Tensor, *, visible: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """tokens [R, L, D], actions [R, L] -> [R, L, D]; visible [L, L], places [L]: see `Group`."""
        rows, length, _ = tokens.shape
        grids, mixed = Grids((Group.whole(rows, length, visible=visible, places=places),)), tokens.flatten(0, 1)
        for block in self.blocks:
            mixed = block(mixed, grids, actions.flatten())
        return mixed.view(rows, length, -1)

    def _own_terms(self) -> Mapping[str, Tensor]:
        error = self._memory_pass.newest
        return {} if error is None or not self.memory_weight else {"memory": self.memory_weight * error}


def squared_error(written: Tensor, references: Tensor, full: Tensor) -> Tensor:
    """written [B, K, M, D], references [B, F, M, D], full [B, F] -> the mean over what full segments have written; no
    gradient reaches the references. On several devices the segments of the whole batch are what it is divided by."""
    apart = written[:, : full.shape[1]].float() - references.detach().float()
    return (apart.square().mean((2, 3)) * full).sum() / averaged(full.sum().float()).clamp(min=1e-6)
