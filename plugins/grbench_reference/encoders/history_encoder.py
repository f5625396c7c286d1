"""The base of encoders of histories: items, users and events become tokens, and the tokens' states are compared with
item vectors. A subclass supplies the blocks between tokens and states.

Shapes: B users, T history length, N items, P tokens, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import LookAhead
from grbench.registry.option_types import OptionGroup, Share
from grbench.types import Batch, Codes
from grbench_reference.encoders.one_pass import OnePass
from grbench_reference.features.event_context import EventContextOptions, event_context
from grbench_reference.features.fusion import (
    FusionOptions,
    ItemFeatureOptions,
    UserFeatureOptions,
    item_tower,
    user_tower,
)
from grbench_reference.features.parts import TABLE_SPREAD, EmbeddingTable
from grbench_reference.kernels.embedding import Dropout, unit
from grbench_reference.layers.action_conditioning import (
    ActionOptions,
    action_bias,
    next_action_head,
    token_actions,
)
from grbench_reference.layers.token_packing import Layout, lay_out

PositionEncoding = Literal["learned", "learned_from_end", "rotary", "none"]
Similarity = Literal["dot", "cosine"]


@dataclass(frozen=True, kw_only=True)
class HistoryOptions(OptionGroup):
    """Options of every encoder of histories.

    Args:
        user_token: put the user's token first; it predicts the first event of the history (paper, released code).
        semantic_ids: the tokenizer's codes as item features, a field each level.
        field_dropout: share of categorical values hidden in a training step.
        similarity: dot, or cosine = both sides scaled to length 1 (set the loss's temperature with it).
        input_scale: item vectors enter the first block times this; null = the square root of width, as the released
            code does.
    """

    user_token: bool = True
    actions: ActionOptions = ActionOptions()
    context: EventContextOptions = EventContextOptions()
    items: ItemFeatureOptions = ItemFeatureOptions()
    users: UserFeatureOptions = UserFeatureOptions()
    fusion: FusionOptions = FusionOptions()
    semantic_ids: bool = False
    field_dropout: Share = 0.0
    similarity: Similarity = "dot"
    input_scale: Annotated[float, Field(gt=0)] | None = None


class HistoryEncoder(nn.Module, ABC):
    """User token, then one token an event, each of which predicts the next; `mix`, the subclass's blocks, turns tokens
    into states.

    `items` gives an item its vector, in the history and as a candidate; `_tokens` gives an event its token. An encoder
    with item vectors of its own replaces the module `items` by one with the tower's `forward` and `each_once`.

    The keyword arguments come from the subclass. dropout: of the tokens that enter the first block. positions: learned
    ones are added to the tokens here; rotary ones are applied by the subclass's blocks.
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        options: HistoryOptions,
        *,
        width: int,
        history_length: int,
        dropout: float,
        last_norm: nn.Module,
        positions: PositionEncoding,
    ) -> None:
        """last_norm: of the states behind the last block."""
        super().__init__()
        if options.users.user_id and not options.user_token:
            raise SuiteError("encoder.user_id: needs user_token true, since the first token is where a user's row goes")
        self.history_length, self.width = history_length, width
        self.user_token, self.cosine = options.user_token, options.similarity == "cosine"
        self.input_scale = width**0.5 if options.input_scale is None else options.input_scale
        items = item_tower(
            data,
            options.items,
            options.fusion,
            width=width,
            semantic_ids=codes if options.semantic_ids else None,
            field_dropout=options.field_dropout,
        )
        if items is None:
            raise SuiteError(
                "encoder: an item needs at least one of id_width above 0, hashed_ids, semantic_ids, item_features, "
                "item_dates and embeddings"
            )
        self.items = items
        if options.user_token:
            self.start_token = nn.Parameter(torch.empty(width).normal_(std=TABLE_SPREAD))
            self.users = user_tower(
                data, options.users, options.fusion, width=width, field_dropout=options.field_dropout
            )
        names, self.action_conditioning = data.catalogue.actions, options.actions.action_conditioning
        self.num_actions = len(names)
        self.actions = token_actions(self.action_conditioning, self.num_actions, width)
        self.context = event_context(data, options.context, width=width)
        self.next_action = next_action_head(options.actions.next_action, names, width)
        self.from_end = positions == "learned_from_end"
        self.places = nn.Embedding(self.length, width) if positions == "learned" or self.from_end else None
        if self.places is not None:
            nn.init.normal_(self.places.weight, std=TABLE_SPREAD)
        self.dropout = Dropout(dropout)
        self.last_norm = last_norm
        self._pass: OnePass[Tensor] = OnePass()

    def predicts_first_event(self) -> bool:
        """From the user's token, where there is one."""
        return self.user_token

    def looks_ahead(self) -> Collection[LookAhead]:
        """The next action with `next_action`, the events left with `positions: learned_from_end`."""
        ahead: list[LookAhead] = [] if self.next_action is None else ["next_action"]
        return [*ahead, "events_left"] if self.from_end else ahead

    @property
    def length(self) -> int:
        """The most tokens that a row has."""
        return self.history_length + int(self.user_token)

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, T, D] the state after each event, with a user token [B, T + 1, D], its state first;
        [N, D]). Each distinct item is embedded once."""
        known = self._pass.get(batch)
        if known is not None:
            (vectors,) = self.items.each_once(items)
            return known, self._normalise(vectors)
        layout = lay_out(batch, user_token=self.user_token)
        events, vectors = self.items.each_once(layout.take(batch.items), items)
        next_actions = layout.take(batch.next_actions, batch.user_next_actions)
        states = self._condition(self._states(batch, layout, events), next_actions)
        return self._pass.put(batch, layout.to_batch(self._normalise(states))), self._normalise(vectors)

    @contextmanager
    def one_pass(self) -> Iterator[Callable[[], Mapping[str, Tensor]]]:
        """Inside, a batch's histories are encoded once, however many losses need them. Yields a function that gives no
        further loss terms."""
        with self._pass.open():
            yield dict

    def embed_histories(self, batch: Batch) -> Tensor:
        """-> [B, D], the state after the newest event: the user token's where there is none, zero without one."""
        layout = lay_out(batch, user_token=self.user_token)
        (events,) = self.items.each_once(layout.take(batch.items))
        newest = layout.newest(self._states(batch, layout, events))
        return self._normalise(self._condition(newest, batch.next_actions[:, -1]))

    def embed_items(self, items: Tensor) -> Tensor:
        """items [N] -> [N, D]."""
        return self._normalise(self.items(items))

    @abstractmethod
    def mix(self, tokens: Tensor, batch: Batch, layout: Layout) -> Tensor:
        """tokens [P, D] -> [P, D], through the subclass's blocks: a token attends to its row's tokens up to itself."""

    def key_bias(self, heads: int) -> EmbeddingTable | None:
        """For one block: actions of keys [P] -> [P, H], added to each key's scores; None without attention_bias."""
        return action_bias(self.action_conditioning, self.num_actions, heads)

    def _states(self, batch: Batch, layout: Layout, events: Tensor) -> Tensor:
        """events [P, D], each token's item vector -> [P, D], each token's state."""
        tokens = self.dropout(self._tokens(batch, layout, events))
        states: Tensor = self.last_norm(self.mix(tokens, batch, layout))
        return states

    def _tokens(self, batch: Batch, layout: Layout, events: Tensor) -> Tensor:
        """events [P, D], each token's item vector -> [P, D], the tokens that enter the first block."""
        tokens = events * self.input_scale
        if self.context is not None:
            tokens = tokens + self.context(batch, layout.events)
        if self.actions is not None:
            tokens = self.actions(tokens, layout.take(batch.actions))
        if self.user_token:
            # In half precision the two may differ in type, which autocast mends on a CPU and not on a GPU.
            tokens = tokens.index_copy(0, layout.first, self._users(batch).to(tokens.dtype))
        if self.places is not None:
            tokens = tokens + self.places(layout.from_newest() if self.from_end else layout.place)
        return tokens

    def _users(self, batch: Batch) -> Tensor:
        """-> [B, D], each row's first token."""
        users = self.start_token.expand(len(batch.users), -1)
        return users if self.users is None else users + self.users(batch.users)

    def _condition(self, states: Tensor, next_actions: Tensor) -> Tensor:
        """states [..., D], next_actions [...] -> [..., D], conditioned on the next action."""
        return states if self.next_action is None else self.next_action(states, next_actions)

    def _normalise(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.cosine else vectors
