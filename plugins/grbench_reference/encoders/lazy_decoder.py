"""OneRec-V2's lazy decoder-only model (arXiv 2508.20900): nothing encodes the history but one projection of its events.

Shapes: B users, T history length, S = T + 1 context tokens, the user's first, L levels, K_l codes of level l, P
positions with a target, D width, H heads, G key-value heads, E = D / H, R beams of all users, m codes decoded, n tokens
of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import LookAhead
from grbench.registry.option_types import Count, Share
from grbench.types import Batch, Codes
from grbench_reference.encoders.history_encoder import Similarity
from grbench_reference.encoders.one_pass import OnePass
from grbench_reference.features.code_table import CodeTable, SummedCodes
from grbench_reference.features.event_context import EventContextOptions, event_context
from grbench_reference.features.fusion import (
    FusionOptions,
    ItemFeatureOptions,
    UserFeatureOptions,
    item_tower,
    user_tower,
)
from grbench_reference.features.parts import TABLE_SPREAD
from grbench_reference.kernels.embedding import Dropout
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.layers.action_conditioning import ActionOptions, action_bias, next_action_head, token_actions
from grbench_reference.layers.cached_decoding import BeamOwners, KeyValues
from grbench_reference.layers.code_head import CodeHead
from grbench_reference.layers.interfaces import LevelStates
from grbench_reference.layers.lazy_decoding import Asked, ContextProcessor, LazyBlock, biased
from grbench_reference.layers.token_packing import lay_out
from grbench_reference.layers.transformer import Rotary, width_of_heads


class Context(NamedTuple):
    """What is made of a batch's histories. sets: keys and values [B, G, S, E], one or several for all blocks; visible,
    places: [B, S], whether a token exists and its place in its row; bias: [B, G, S] of its scores, or None."""

    sets: tuple[KeyValues, ...]
    visible: Tensor
    places: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class LazyState:
    """generated: of each block, keys and values of each beam's tokens [R, H, m, E]; next_actions: [R], the action that
    each beam's item is decoded for; level: of the next code."""

    context: Context
    generated: tuple[KeyValues, ...]
    asked: Asked
    next_actions: Tensor
    level: int

    def select(self, rows: Tensor) -> LazyState:
        """rows [R'] index the current beams: repeats, drops or reorders them; the context stays as it is."""
        owners = BeamOwners.of(self.asked.owners.owner[rows], self.asked.owners.lengths)
        return replace(
            self,
            generated=tuple(KeyValues(block.keys[rows], block.values[rows]) for block in self.generated),
            asked=replace(self.asked, owners=owners, places=self.asked.places[rows]),
            next_actions=self.next_actions[rows],
        )


class LazyDecoder(nn.Module):
    """Decodes the next item's codes from [BOS, code 1, code 2, ...] alone, by blocks that read the history through keys
    and values that are made once; beside it, `sid_decoder` has blocks over the history.

    As in the paper: an event is embedded once and projected once; all blocks share these keys, which are the values
    too, and query heads share key-value heads; a block is cross-attention without projections of keys and values,
    causal self-attention over the codes, and a feed-forward layer. With `kv_sets: BLOCKS`, `separate_values: true` and
    `kv_heads: HEADS` nothing is shared.

    The paper's loss is that of the newest event only, which is `trainer: {name: supervised, examples: prefixes}`: each
    event is then the newest of one example. Without it every event of a history is a target in one pass over a context
    of which it sees the part before it.

    Ours: an event's embedding is that of `sid_decoder`, as are the output embeddings; the user's profile is the first
    token of the context; places enter by rotary queries and keys, values are not turned; keys pass an RMSNorm a head;
    the next action conditions the decoder's tokens; `attention_bias` is by key-value head, for all blocks. There is no
    mixture of experts.

    Args:
        width: of tokens and blocks.
        blocks: how many decode.
        heads: of each block's queries.
        kv_heads: of the keys and values, which heads / kv_heads query heads share.
        kv_sets: different keys and values; block l reads set floor(l kv_sets / blocks), from 0.
        separate_values: values have a projection of their own.
        feed_forward: hidden width of the feed-forward layers, in widths.
        dropout: of tokens, block outputs and feed-forward layers.
        attention_dropout: of the weights of the cross-attention; null = as dropout.
        history_length: newest events read.
        user_features: categorical fields of the user in the first token: true = all, false = none, or their names.
        item_features: categorical item fields that tokens have beside codes, likewise.
        embeddings: content embeddings that tokens have beside codes: all = those the dataset option names, none, or
            their names.
        id_width: width of an item id table beside codes; null = width, 0 = no id.
        fusion_layers: layers of the MLP that fuses ids, fields and embeddings.
        tie_codes: the output embeddings of codes are their input embeddings.
        similarity: dot, or cosine = states and codes scaled to length 1 (lower the temperature with it).
        temperature: code logits are divided by it.
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        width: Count = 64,
        blocks: Count = 2,
        heads: Count = 2,
        kv_heads: Count = 1,
        kv_sets: Count = 1,
        separate_values: bool = False,
        feed_forward: Annotated[float, Field(gt=0)] = 2.0,
        dropout: Share = 0.1,
        attention_dropout: Share | None = None,
        history_length: Count = 100,
        actions: ActionOptions = ActionOptions(),
        context: EventContextOptions = EventContextOptions(),
        users: UserFeatureOptions = UserFeatureOptions(),
        items: ItemFeatureOptions = ItemFeatureOptions(item_features=False, embeddings="none"),
        fusion: FusionOptions = FusionOptions(id_width=0),
        tie_codes: bool = False,
        similarity: Similarity = "dot",
        temperature: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__()
        if heads % kv_heads:
            raise SuiteError(f"encoder.kv_heads: {heads} heads cannot share {kv_heads}; kv_heads must divide heads")
        if kv_sets > blocks:
            raise SuiteError(f"encoder.kv_sets: {kv_sets} sets for {blocks} blocks; at most one a block is read")
        self.history_length, self.shares = history_length, heads // kv_heads
        levels, names, conditioning = len(codes.sizes), data.catalogue.actions, actions.action_conditioning
        rotary = Rotary(width_of_heads(width, heads, rotary=True), history_length + 1 + levels)
        table = CodeTable(codes, width, trained=data.item_counts() > 0)
        self.items = SummedCodes(table, width, item_tower(data, items, fusion, width=width))
        self.users = user_tower(data, users, fusion, width=width)
        self.actions = token_actions(conditioning, len(names), width)
        self.event_context = event_context(data, context, width=width)
        self.start_token = nn.Parameter(torch.empty(width).normal_(std=TABLE_SPREAD))
        self.bos = nn.Parameter(torch.empty(width).normal_(std=TABLE_SPREAD))
        self.next_action = next_action_head(actions.next_action, names, width)
        self.processor = ContextProcessor(
            width, heads, kv_heads=kv_heads, sets=kv_sets, separate_values=separate_values, rotary=rotary
        )
        self.key_bias = action_bias(conditioning, len(names), kv_heads)
        share = dropout if attention_dropout is None else attention_dropout
        hidden = max(1, round(feed_forward * width))
        self.blocks = nn.ModuleList(
            LazyBlock(
                width,
                heads,
                kv_heads=kv_heads,
                hidden=hidden,
                dropout=dropout,
                attention_dropout=share,
                rotary=rotary,
            )
            for _ in range(blocks)
        )
        self.set_of_block = [block * kv_sets // blocks for block in range(blocks)]
        self.dropout, self.last_norm = Dropout(dropout), RMSNorm(width)
        self.head = CodeHead(codes, width, tied=tie_codes, cosine=similarity == "cosine", temperature=temperature)
        self._pass: OnePass[Context] = OnePass()

    def predicts_first_event(self) -> bool:
        """From the user's token."""
        return True

    def looks_ahead(self) -> Collection[LookAhead]:
        """The next action with `next_action`."""
        ahead: list[LookAhead] = [] if self.next_action is None else ["next_action"]
        return ahead

    @contextmanager
    def one_pass(self) -> Iterator[Callable[[], Mapping[str, Tensor]]]:
        """Inside, a batch's context is made once, however many losses need it. Yields a function that gives no further
        loss terms."""
        with self._pass.open():
            yield dict

    @property
    def codes_of_items(self) -> CodeTable:
        """The codes of items and their embeddings."""
        return self.items.codes

    def code_states(self, batch: Batch, needed: Tensor | None = None) -> Sequence[LevelStates]:
        """Teacher-forced by batch.all_targets -> one a level, of all P positions or those of needed [P, L] bool."""
        context, table = self._context(batch), self.codes_of_items
        length = batch.items.shape[1] + 1
        positions = batch.all_targets.reshape(-1).nonzero().squeeze(1)
        rows, ends = positions // length, positions % length
        asked = Asked.up_to(
            rows,
            ends,
            context.places[rows, ends] + 1,
            context.visible,
            context.bias,
            shares=self.shares,
            tokens=table.levels,
        )
        written = table.codes_of(batch.all_targets.reshape(-1)[positions]) + table.starts
        tokens = torch.cat([self._bos(len(positions)), table.vectors(written[:, :-1])], 1)
        next_actions = batch.all_next_actions.reshape(-1)[positions]
        states = self._decode(tokens, next_actions, context, asked, None)[0].unbind(1)
        if needed is not None:
            states = tuple(each[some] for each, some in zip(states, needed.T, strict=True))
        return [self.head.level(level, each, table) for level, each in enumerate(states)]

    def code_logits(self, batch: Batch) -> Sequence[Tensor]:
        """Teacher-forced by batch.all_targets -> per level l: [P, K_l], P = positions with a target, row by row."""
        return [self.head.of(level, each) for level, each in enumerate(self.code_states(batch))]

    def start(self, batch: Batch) -> tuple[Tensor, LazyState]:
        """-> (logits of level 0 [B, K_0], state of one beam a user)."""
        context, users = self._context(batch), torch.arange(len(batch.users), device=batch.items.device)
        owners = BeamOwners.of(users, context.visible.sum(1))
        asked = Asked(owners, owners.lengths, biased(context.visible[:, None, None], context.bias))
        return self._next(self._bos(len(users)), LazyState(context, (), asked, batch.next_actions[:, -1], 0))

    def step(self, codes: Tensor, state: LazyState) -> tuple[Tensor, LazyState]:
        """codes [R], one a beam of the state -> (logits of the next level [R, K_l], state)."""
        return self._next(self.codes_of_items.embed(state.level - 1, codes).unsqueeze(1), state)

    def _next(self, tokens: Tensor, state: LazyState) -> tuple[Tensor, LazyState]:
        """tokens [R, 1, D] -> (logits of the state's level, the state with them in it)."""
        states, generated = self._decode(
            tokens, state.next_actions, state.context, state.asked, state.generated or None
        )
        logits = self.head.logits(state.level, states[:, 0], self.codes_of_items)
        return logits, replace(state, generated=generated, level=state.level + 1)

    def _bos(self, rows: int) -> Tensor:
        """-> [rows, 1, D]"""
        return self.bos.expand(rows, 1, -1)

    def _decode(
        self,
        tokens: Tensor,
        next_actions: Tensor,
        context: Context,
        asked: Asked,
        earlier: tuple[KeyValues, ...] | None,
    ) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """tokens [R, n, D], next_actions [R] -> ([R, n, D], each block's keys and values of the rows' tokens)."""
        if self.next_action is not None:
            tokens = self.next_action(tokens, next_actions.unsqueeze(1))
        tokens, generated = self.dropout(tokens), []
        for number, block in enumerate(self.blocks):
            before = None if earlier is None else earlier[number]
            tokens, own = block(tokens, context.sets[self.set_of_block[number]], asked, before)
            generated.append(own)
        return self.last_norm(tokens), tuple(generated)

    def _context(self, batch: Batch) -> Context:
        known = self._pass.get(batch)
        if known is not None:
            return known
        layout = lay_out(batch, user_token=True)
        (events,) = self.items.each_once(layout.take(batch.items))
        actions = layout.take(batch.actions)
        if self.event_context is not None:
            events = events + self.event_context(batch, layout.events)
        if self.actions is not None:
            events = self.actions(events, actions)
        users = self.start_token.expand(len(batch.users), -1)
        if self.users is not None:
            users = users + self.users(batch.users)
        tokens = layout.to_batch(self.dropout(events.index_copy(0, layout.first, users.to(events.dtype))))
        real = batch.items != 0
        first = torch.where(real.any(1), real.int().argmax(1), real.shape[1])
        places = (torch.arange(tokens.shape[1], device=first.device) - first.unsqueeze(1)).clamp(min=0)
        visible = places > 0
        visible[:, 0], places[:, 0] = True, 0  # the user's token, however long the padding behind it
        bias = None
        if self.key_bias is not None:
            bias = self.key_bias(pad(batch.actions, (1, 0))).transpose(1, 2)
        return self._pass.put(batch, Context(self.processor(tokens, places), visible, places, bias))
