"""Tiny stores whose answers can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grbench.data.store import Field, Store
from grbench.data.store_writer import StoreWriter, build_store
from grbench.interfaces import Dataset
from grbench.types import ACTION_MISSING, FIRST_ACTION, FIRST_VALUE, MISSING

History = Sequence[tuple[int, int | None, int]]


def tiny_store(
    folder: Path,
    histories: Sequence[History],
    *,
    actions: Sequence[str] = ("exposure", "click"),
    num_items: int | None = None,
    item_features: Mapping[str, Sequence[Any]] | None = None,
    user_features: Mapping[str, Sequence[Any]] | None = None,
    embeddings: Mapping[str, np.ndarray] | None = None,
    item_texts: Mapping[str, Sequence[str | None]] | None = None,
    candidates: Sequence[int] | None = None,
    has_times: bool = True,
) -> Store:
    """A store under `folder` of a few users, each a list of (item, action number or None, unix time).

    A feature column holds one value an item (items 1..N) or user: an int, None (missing), or a list of ints.
    An embedding is [N, d]; a row of NaN is missing. A text column holds one text an item, None where it has none.
    `num_items` is the largest item seen where not given.
    """
    dataset = _TinyDataset(
        histories,
        actions=tuple(actions),
        num_items=num_items or max(item for history in histories for item, _, _ in history),
        item_features=item_features or {},
        user_features=user_features or {},
        embeddings=embeddings or {},
        item_texts=item_texts or {},
        candidates=candidates,
        has_times=has_times,
    )
    return build_store(dataset, name="tiny", cache=folder)


class _TinyDataset(Dataset):
    def __init__(self, histories: Sequence[History], **described: Any) -> None:
        self.histories, self.described = histories, described

    def digest(self) -> str:
        return repr((self.histories, self.described))

    def write(self, writer: StoreWriter) -> None:
        world = self.described
        writer.actions, writer.has_times = world["actions"], world["has_times"]
        events = [event for history in self.histories for event in history]
        writer.add_users(
            np.arange(len(self.histories)) + 1000,
            np.array([len(history) for history in self.histories]),
            np.array([item for item, _, _ in events], np.int32),
            np.array([ACTION_MISSING if action is None else action + FIRST_ACTION for _, action, _ in events], np.int8),
            np.array([time if world["has_times"] else 0 for _, _, time in events], np.int64),
        )
        items = np.arange(world["num_items"] + 1, dtype=np.int64)
        writer.set_items(np.where(items > 0, items + 20_000_000_000, 0))
        if world["item_features"]:
            fields, columns = _encode(world["item_features"])
            writer.create_item_features(fields)[1:] = columns
        if world["user_features"]:
            fields, columns = _encode(world["user_features"])
            writer.create_user_features(fields)[:] = columns
        for name, vectors in world["embeddings"].items():
            values, present = writer.create_embedding(name, np.shape(vectors)[1])
            present[1:] = ~np.isnan(vectors).any(axis=1)
            values[1:] = np.nan_to_num(vectors)
        for name, texts in world["item_texts"].items():
            writer.create_item_text(name).append(texts)
        if world["candidates"] is not None:
            writer.set_candidates(np.array(world["candidates"]))


def _encode(features: Mapping[str, Sequence[Any]]) -> tuple[list[Field], np.ndarray]:
    fields, columns, start = [], [], 0
    for name, cells in features.items():
        lists = [cell if isinstance(cell, list) else [cell] for cell in cells]
        width = max(map(len, lists))
        codes = np.zeros((len(lists), width), np.int32)
        for row, values in enumerate(lists):
            codes[row, : len(values)] = [MISSING if value is None else value + FIRST_VALUE for value in values]
        fields.append(Field(name, max(int(codes.max()), FIRST_VALUE) + 1, start, width))
        columns.append(codes)
        start += width
    return fields, np.concatenate(columns, axis=1)
