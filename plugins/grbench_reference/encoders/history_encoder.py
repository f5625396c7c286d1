"""What every encoder of histories shares: items, users and events become tokens, tokens become states, and states are
compared with item vectors. An encoder that builds on it chooses what mixes the tokens.

Shapes: B users, T history length, N items, P tokens, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.registry.option_types import Count, Share
from grbench.types import Batch, Codes
from grbench_reference.encoders.one_pass import OnePass
from grbench_reference.features.event_context import event_context
from grbench_reference.features.fusion import Names, Pooling, item_tower, user_tower
from grbench_reference.features.parts import TABLE_SPREAD, EmbeddingTable
from grbench_reference.features.time_features import TimeFeature
from grbench_reference.kernels.embedding import Dropout, unit
from grbench_reference.layers.action_conditioning import (
    ActionConditioning,
    NextActions,
    action_bias,
    next_action_head,
    token_actions,
)
from grbench_reference.layers.token_packing import Layout, lay_out
from grbench_reference.layers.transformer import Norm, normalisation

Embeddings = Literal["all", "none"] | list[str | int]
PositionEncoding = Literal["learned", "learned_from_end", "rotary", "none"]
Similarity = Literal["dot", "cosine"]


class HistoryEncoder(nn.Module, ABC):
    """User token, then one token an event; items by the same feature fusion. A subclass says how tokens are mixed.

    `items` is the one place where an item gets its vector, `_tokens` the one where an event gets its token; an encoder
    with item vectors of its own puts another module in place of `items`, with the tower's `forward` and `each_once`.
    The arguments without a default are what a subclass says of itself: `dropout` is that of the tokens that enter the
    first block; `positions` are added to tokens here where they are learned, and are the blocks' own matter else.

    Args:
        user_token: put the user's token first.
        action_conditioning: how an event's action enters: additive = its embedding is added to the token (paper,
            equation 2); gate = the token times 2 sigmoid(w), film = times 1 + scale and plus shift, learned for each
            action and neutral at first; attention_bias = it shifts the scores of its event, by head; none; or a list of
            ways, one after another (first place: gate, film and attention_bias).
        next_action: condition each state on the next action (PinRec, arXiv 2504.10507), in training the target's own:
            true, or only on the actions named here, so that exposures, say, are learnt unconditioned.
        time_features: what an event's time (UTC) adds to its token: hour, weekday, day (since the first training
            event), gap (since the event before), request (events of one time), session (half an hour without an event
            ends it), cross_day (days since the last active one), fourier (periods from an hour to a year).
        popularity_windows: days; how many training events an event's item had in so many whole days before the event's
            own adds to its token, in buckets that double.
        context_dropout: share of time and popularity buckets hidden in a training step (OnePiece: 0.5).
        item_features: categorical item fields: true = all the dataset has, false = none, or their names.
        user_features: categorical user fields, likewise.
        embeddings: content embeddings: all = those the dataset option names, none, or their names.
        id_width: width of the item id's table; null = width, 0 = no id.
        hashed_ids: rows of further item-id tables, row = item number modulo rows, beside or without the id's own
            (OnePiece: 2000003 and 3000017, with id_width 32 and hashed_width 256).
        hashed_width: width of each of those tables; null = width.
        semantic_ids: the tokenizer's codes as item features, a field each level.
        user_id: the user's own row in the first token; users without a training event share one, which id_dropout
            teaches.
        field_width: width of each categorical field's rows; null = width.
        pooling: of the values of a multi-value field.
        fusion_layers: layers of the MLP that fuses a token's parts; its output is linear.
        id_dropout: share of items, and of users with user_id, whose id is hidden in a training step, so that unseen
            ones can be served.
        field_dropout: share of categorical values hidden in a training step.
        sparse: sparse gradients for the tables: memory and time follow the batch, not the catalogue.
        similarity: dot, or cosine = both sides scaled to length 1 (set the loss's temperature with it).
        input_scale: item vectors enter the first block times this; null = the square root of width, as the released
            code does.
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        width: int,
        history_length: int,
        dropout: float,
        norm: Norm,
        positions: PositionEncoding,
        user_token: bool = True,
        action_conditioning: ActionConditioning = "additive",
        next_action: NextActions = False,
        time_features: list[TimeFeature] = [],  # noqa: B006 - read, never written
        popularity_windows: list[Count] = [],  # noqa: B006
        context_dropout: Share = 0.0,
        item_features: Names = True,
        user_features: Names = True,
        embeddings: Embeddings = "all",
        id_width: Annotated[int, Field(ge=0)] | None = None,
        hashed_ids: list[Count] = [],  # noqa: B006
        hashed_width: Count | None = None,
        semantic_ids: bool = False,
        user_id: bool = False,
        field_width: Count | None = None,
        pooling: Pooling = "mean",
        fusion_layers: Count = 2,
        id_dropout: Share = 0.0,
        field_dropout: Share = 0.0,
        sparse: bool = False,
        similarity: Similarity = "dot",
        input_scale: Annotated[float, Field(gt=0)] | None = None,
    ) -> None:
        super().__init__()
        if user_id and not user_token:
            raise SuiteError("encoder.user_id: needs user_token true, since the first token is where a user's row goes")
        self.history_length, self.width = history_length, width
        self.user_token, self.cosine = user_token, similarity == "cosine"
        self.input_scale = width**0.5 if input_scale is None else input_scale
        self.items = item_tower(
            data,
            width=width,
            fields=item_features,
            embeddings=embeddings,
            id_width=id_width,
            hashed_ids=hashed_ids,
            hashed_width=hashed_width,
            semantic_ids=codes if semantic_ids else None,
            field_width=field_width,
            pooling=pooling,
            layers=fusion_layers,
            id_dropout=id_dropout,
            field_dropout=field_dropout,
            sparse=sparse,
        )
        if user_token:
            self.anyone = nn.Parameter(torch.empty(width).normal_(std=TABLE_SPREAD))
            self.users = user_tower(
                data,
                width=width,
                fields=user_features,
                user_id=user_id,
                id_width=id_width,
                field_width=field_width,
                pooling=pooling,
                layers=fusion_layers,
                id_dropout=id_dropout,
                field_dropout=field_dropout,
                sparse=sparse,
            )
        self.num_actions, self.action_conditioning = len(data.catalogue.actions), action_conditioning
        self.actions = token_actions(action_conditioning, self.num_actions, width)
        self.context = event_context(
            data,
            width=width,
            time_features=time_features,
            popularity_windows=popularity_windows,
            context_dropout=context_dropout,
        )
        self.next_action = next_action_head(next_action, data.catalogue.actions, width)
        self.from_end = positions == "learned_from_end"
        self.places = nn.Embedding(self.length, width) if positions == "learned" or self.from_end else None
        if self.places is not None:
            nn.init.normal_(self.places.weight, std=TABLE_SPREAD)
        self.dropout = Dropout(dropout)
        self.last_norm = normalisation(norm, width)
        self._pass: OnePass[Tensor] = OnePass()

    @property
    def length(self) -> int:
        """The most tokens that a row has."""
        return self.history_length + int(self.user_token)

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, T, D] the state after each event, [N, D]); each distinct item is embedded once."""
        known = self._pass.of(batch)
        if known is not None:
            (vectors,) = self.items.each_once(items)
            return known, self._normalise(vectors)
        layout = lay_out(batch, user_token=self.user_token)
        events, vectors = self.items.each_once(layout.take(batch.items), items)
        states = self._condition(self._states(batch, layout, events), layout.take(batch.next_actions))
        return self._pass.keep(batch, layout.give_back(self._normalise(states))), self._normalise(vectors)

    @contextmanager
    def one_pass(self) -> Iterator[Callable[[], Mapping[str, Tensor]]]:
        """Inside, a batch's histories are read once, however many losses ask; there are no terms but theirs."""
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
        """tokens [P, D] -> [P, D], each having read its row's tokens up to itself: the subclass's blocks."""

    def key_bias(self, heads: int) -> EmbeddingTable | None:
        """For one block: [P] actions of keys -> [P, H], added to the scores of each key; None where not wanted."""
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
        users = self.anyone.expand(len(batch.users), -1)
        return users if self.users is None else users + self.users(batch.users)

    def _condition(self, states: Tensor, next_actions: Tensor) -> Tensor:
        """states [..., D], next_actions [...] -> [..., D], conditioned on the next action."""
        return states if self.next_action is None else self.next_action(states, next_actions)

    def _normalise(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.cosine else vectors
