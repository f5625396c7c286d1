"""Feature fusion: every item and every user becomes one vector (paper, equation 3). Any encoder can use it.

Shapes: M entities (items or users), D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from grbench.data.store import FeatureTable, Field
from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.registry.option_types import Count, Natural, OptionGroup, Share
from grbench.types import Codes
from grbench_reference.features.hashed_ids import HashedIds
from grbench_reference.features.item_dates import ItemDates
from grbench_reference.features.parts import ContentEmbedding, FeaturePart, FusedFields, IdEmbedding
from grbench_reference.features.semantic_ids import SemanticIds
from grbench_reference.kernels.embedding import distinct, gather_rows

ROWS_AT_ONCE = 1 << 16  # entities embedded at once without gradients, to bound memory

Names = bool | list[str | int]
"""Which fields: true for all, false for none, or their names."""
Embeddings = Literal["all", "none"] | list[str | int]
"""Which content embeddings: all that the dataset has, none, or their names."""
Pooling = Literal["mean", "sum"]


@dataclass(frozen=True, kw_only=True)
class ItemFeatureOptions(OptionGroup):
    """Features of items.

    Args:
        item_features: categorical item fields: true = all the dataset has, false = none, or their names.
        embeddings: content embeddings: all = those the dataset option names, none, or their names.
        item_dates: the first and the last day (UTC) of an item's training events, as six categorical fields: year,
            month and day of either; missing where it has none (OnePiece's days of an ad's exposure).
        hashed_ids: rows of further item-id tables, row = item number modulo rows, beside or without the id's own
            (OnePiece: 2000003 and 3000017, with id_width 32 and hashed_width 256).
        hashed_width: width of each of those tables; null = width.
    """

    item_features: Names = True
    embeddings: Embeddings = "all"
    item_dates: bool = False
    hashed_ids: tuple[Count, ...] = ()
    hashed_width: Count | None = None


@dataclass(frozen=True, kw_only=True)
class UserFeatureOptions(OptionGroup):
    """Features of users, beside the history.

    Args:
        user_features: categorical user fields: true = all the dataset has, false = none, or their names.
        user_id: the user's own row in the first token; users without a training event share one, which id_dropout
            teaches.
    """

    user_features: Names = True
    user_id: bool = False


@dataclass(frozen=True, kw_only=True)
class FusionOptions(OptionGroup):
    """How the features of an item or a user become one vector.

    Args:
        id_width: width of the item id's table; null = width, 0 = no id.
        field_width: width of each categorical field's rows; null = width.
        pooling: of the values of a multi-value field.
        fusion_layers: layers of the MLP that fuses a token's parts; its output is linear.
        id_dropout: share of items, and of users with user_id, whose id is hidden in a training step, so that unseen
            ones can be served.
        sparse: sparse gradients for the tables: memory and time follow the batch, not the catalogue.
    """

    id_width: Natural | None = None
    field_width: Count | None = None
    pooling: Pooling = "mean"
    fusion_layers: Count = 2
    id_dropout: Share = 0.0
    sparse: bool = False


class Tower(nn.Module):
    """Parts of an entity through an MLP with a linear output: entities of any shape [...] -> [..., D].

    The MLP's first layer is a linear map of the parts' concatenation, computed part by part so that nothing is
    concatenated. One id part of width D, and nothing else, passes unchanged: without features an item is its row of
    the id table. `count` entities exist; entity `padding` is zero.
    """

    def __init__(
        self, parts: Sequence[FeaturePart], width: int, *, layers: int, count: int, padding: int | None
    ) -> None:
        super().__init__()
        self.parts, self.width, self.count, self.padding = nn.ModuleList(parts), width, count, padding
        self.widths = [part.output_width for part in parts]
        self.is_table = len(parts) == 1 and isinstance(parts[0], IdEmbedding) and self.widths == [width]
        if not self.is_table:
            self.first = nn.Linear(sum(self.widths), width)
            self.rest = nn.Sequential(
                *(layer for _ in range(layers - 1) for layer in (nn.GELU(), nn.Linear(width, width)))
            )
            for layer in self.modules():
                if isinstance(layer, nn.Linear):  # a shared bias would give every item the same large logit at first
                    nn.init.zeros_(layer.bias)

    def forward(self, entities: Tensor) -> Tensor:
        flat = entities.reshape(-1)
        if torch.is_grad_enabled() or len(flat) <= ROWS_AT_ONCE:
            vectors = self._embed(flat)
        else:
            vectors = torch.cat([self._embed(some) for some in torch.split(flat, ROWS_AT_ONCE)])
        return vectors.view(*entities.shape, self.width)

    def each_once(self, *groups: Tensor) -> tuple[Tensor, ...]:
        """The vectors of several tensors of entities, each distinct entity embedded once."""
        if self.is_table:  # a row is cheaper to gather twice than to be recognised
            return tuple(self(group) for group in groups)
        entities, where = distinct(torch.cat([group.reshape(-1) for group in groups]), self.count)
        vectors = self(entities)
        places = torch.split(where, [group.numel() for group in groups])
        return tuple(gather_rows(vectors, some.view(group.shape)) for some, group in zip(places, groups, strict=True))

    def _embed(self, entities: Tensor) -> Tensor:
        if self.is_table:
            vectors: Tensor = self.parts[0](entities)
            return vectors
        fused = self.first.bias
        for part, weight in zip(self.parts, torch.split(self.first.weight, self.widths, dim=1), strict=True):
            fused = fused + part.project(entities, weight)  # type: ignore[operator]
        vectors = self.rest(fused)
        return vectors if self.padding is None else vectors * (entities != self.padding).to(vectors.dtype).unsqueeze(-1)


def item_tower(
    data: TrainingData,
    items: ItemFeatureOptions = ItemFeatureOptions(),
    fusion: FusionOptions = FusionOptions(),
    *,
    width: int,
    semantic_ids: Codes | None = None,
    field_dropout: float = 0.0,
) -> Tower | None:
    """Items [...] -> [..., width]: id, hashed id, semantic id, categorical fields, dates and content embeddings, fused;
    None without any of them.

    semantic_ids: the codes that are a field each level, None = none are. field_dropout: share of categorical values
    hidden in a training step.
    Raises SuiteError for a field or an embedding that the store does not have, and what HashedIds, SemanticIds and
    ItemDates do.
    """
    catalogue = data.catalogue
    trained = data.item_counts() > 0
    parts: list[FeaturePart] = []
    id_width = width if fusion.id_width is None else fusion.id_width
    field_width, id_dropout, sparse = fusion.field_width or width, fusion.id_dropout, fusion.sparse
    if items.hashed_ids:
        hashed_width = items.hashed_width or width
        parts.append(
            HashedIds(
                trained, items.hashed_ids, width=hashed_width, id_width=id_width, dropout=id_dropout, sparse=sparse
            )
        )
    elif id_width:
        parts.append(IdEmbedding(trained, width=id_width, dropout=id_dropout, sparse=sparse))
    if semantic_ids is not None:
        parts.append(SemanticIds(semantic_ids, trained, width=field_width, dropout=field_dropout, sparse=sparse))
    if chosen := _chosen(catalogue.item_features, items.item_features, "item_features"):
        parts.append(
            FusedFields(
                catalogue.item_features,
                chosen,
                trained,
                width=field_width,
                pooling=fusion.pooling,
                dropout=field_dropout,
                sparse=sparse,
            )
        )
    if items.item_dates:
        parts.append(ItemDates(data, trained, width=field_width, dropout=field_dropout, sparse=sparse))
    embeddings = items.embeddings
    if isinstance(embeddings, str):
        embeddings = list(catalogue.embeddings) if embeddings == "all" else []
    for name in map(str, embeddings):
        if name not in catalogue.embeddings:
            raise SuiteError(
                f"encoder.embeddings: no embedding {name!r} in this dataset; it has "
                f"{', '.join(catalogue.embeddings) or 'none'} (the dataset's own options choose what is read)"
            )
        parts.append(ContentEmbedding(catalogue.embeddings[name]))
    count = catalogue.num_items + 1
    return Tower(parts, width, layers=fusion.fusion_layers, count=count, padding=0) if parts else None


def user_tower(
    data: TrainingData,
    users: UserFeatureOptions = UserFeatureOptions(),
    fusion: FusionOptions = FusionOptions(),
    *,
    width: int,
    field_dropout: float = 0.0,
) -> Tower | None:
    """Users [...] -> [..., width] from their profile, and their own row where user_id is on; None without either.

    The user's own row is id_width wide, or width where that is null or 0. field_dropout: as in `item_tower`.
    Raises SuiteError for a field that the store does not have.
    """
    trained = np.zeros(data.catalogue.num_users, bool)
    trained[data.users] = True
    parts: list[FeaturePart] = []
    if users.user_id:
        parts.append(
            IdEmbedding(
                trained,
                width=fusion.id_width or width,
                dropout=fusion.id_dropout,
                sparse=fusion.sparse,
                padded=False,
            )
        )
    table = data.catalogue.user_features
    if chosen := _chosen(table, users.user_features, "user_features"):
        parts.append(
            FusedFields(
                table,
                chosen,
                trained,
                width=fusion.field_width or width,
                pooling=fusion.pooling,
                dropout=field_dropout,
                sparse=fusion.sparse,
            )
        )
    return Tower(parts, width, layers=fusion.fusion_layers, count=len(trained), padding=None) if parts else None


def _chosen(table: FeatureTable, names: Names, option: str) -> list[Field]:
    if isinstance(names, bool):
        return list(table.fields) if names else []
    known = {field.name: field for field in table.fields}
    for name in map(str, names):
        if name not in known:
            raise SuiteError(
                f"encoder.{option}: no feature {name!r} in this dataset; it has {', '.join(known) or 'none'}"
            )
    return [known[str(name)] for name in names]
