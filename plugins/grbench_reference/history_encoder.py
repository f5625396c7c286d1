"""What every encoder of histories shares: items, users and events become tokens, tokens become states, and states are
compared with item vectors. An encoder that builds on it chooses what mixes the tokens.

Shapes: B users, T history length, N items, P tokens, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.types import Batch, Codes
from grbench_reference.blocks import Norm, normalisation
from grbench_reference.conditioning import ActionConditioning, NextActions, next_action_head, token_actions
from grbench_reference.event_context import event_context
from grbench_reference.features import TABLE_SPREAD
from grbench_reference.kernels import Dropout, unit
from grbench_reference.layout import Layout, lay_out
from grbench_reference.one_pass import OnePass
from grbench_reference.time_features import TimeFeature
from grbench_reference.towers import Names, Pooling, item_tower, user_tower

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Embeddings = Literal["all", "none"] | list[str | int]
Places = Literal["learned", "learned_from_end"]
Similarity = Literal["dot", "cosine"]


class HistoryEncoder(nn.Module, ABC):
    """User token, then one token an event; items by the same feature fusion. A subclass says how tokens are mixed.

    `items` is the one place where an item gets its vector, `_tokens` the one where an event gets its token; an encoder
    with item vectors of its own puts another module in place of `items`, with the tower's `forward` and `each_once`.
    The options are those of `encoders.causal_transformer`, where they are documented; `places` are the positions that
    are added to tokens, None = none; `semantic_ids` are the codes that items have as features, None = none.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        width: int,
        history_length: int,
        dropout: float,
        norm: Norm,
        places: Places | None,
        user_token: bool,
        action_conditioning: ActionConditioning,
        next_action: NextActions,
        time_features: Sequence[TimeFeature],
        popularity_windows: Sequence[int],
        context_dropout: float,
        item_features: Names,
        user_features: Names,
        embeddings: Embeddings,
        id_width: int | None,
        hashed_ids: Sequence[int],
        hashed_width: int | None,
        semantic_ids: Codes | None,
        user_id: bool,
        field_width: int | None,
        pooling: Pooling,
        fusion_layers: int,
        id_dropout: float,
        field_dropout: float,
        sparse: bool,
        similarity: Similarity,
        input_scale: float | None,
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
            semantic_ids=semantic_ids,
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
        self.actions = token_actions(action_conditioning, len(data.catalogue.actions), width)
        self.context = event_context(
            data,
            width=width,
            time_features=time_features,
            popularity_windows=popularity_windows,
            context_dropout=context_dropout,
        )
        self.asked = next_action_head(next_action, data.catalogue.actions, width)
        self.places = None if places is None else nn.Embedding(self.length, width)
        self.from_end = places == "learned_from_end"
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
        states = self._ask(self._states(batch, layout, events), layout.take(batch.wanted))
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
        return self._normalise(self._ask(newest, batch.wanted[:, -1]))

    def embed_items(self, items: Tensor) -> Tensor:
        """items [N] -> [N, D]."""
        return self._normalise(self.items(items))

    @abstractmethod
    def mix(self, tokens: Tensor, batch: Batch, layout: Layout) -> Tensor:
        """tokens [P, D] -> [P, D], each having read its row's tokens up to itself: the subclass's blocks."""

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
            tokens = tokens.index_copy(0, layout.first, self._users(batch))
        if self.places is not None:
            tokens = tokens + self.places(layout.from_newest() if self.from_end else layout.place)
        return tokens

    def _users(self, batch: Batch) -> Tensor:
        """-> [B, D], each row's first token."""
        users = self.anyone.expand(len(batch.users), -1)
        return users if self.users is None else users + self.users(batch.users)

    def _ask(self, states: Tensor, wanted: Tensor) -> Tensor:
        """states [..., D], wanted [...] -> [..., D], told which action is asked for."""
        return states if self.asked is None else self.asked(states, wanted)

    def _normalise(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.cosine else vectors
