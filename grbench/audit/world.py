"""The small store that a suite's methods are audited on: of the dataset's stand-in, made up, or cut from its own data.

Shapes: U users, E events, N items, n users that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from grbench.cache import cache_folder
from grbench.data.store import Catalogue, Embedding, FeatureTable, Field, Store, TextColumn
from grbench.data.store_writer import build_store, no_progress
from grbench.interfaces import Dataset, optional
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.run.data_source import build_dataset
from grbench.run.shared_store import shared_store
from grbench.types import FIRST_ACTION, FIRST_VALUE

USERS, ITEMS, EVENTS = 1200, 600, 24
"""Of the made-up store; of other data at most so many users are kept, and of each so many newest events."""
ACTIONS = ("exposure", "click", "conversion")
FIRST_TIME, LAST_TIME = 1_700_000_000, 1_705_000_000


@dataclass(frozen=True)
class World:
    """description: what the data is; own: whether it is the suite's own data, so that files that belong to it fit."""

    store: Store
    description: str
    own: bool


def open_world(dataset: Component, registry: Registry, cache: Path, *, own_data: bool) -> World:
    """The world of a suite's dataset. cache: a folder for the stand-in's store. own_data: cut down the suite's own data
    in place of a synthetic world. Raises what the dataset raises."""
    source = build_dataset(registry, dataset)
    if own_data:
        store = shared_store(source, dataset, registry, cache=cache_folder(), report=no_progress)
        return World(cut_down(store), f"{dataset.name}, cut down", own=True)
    stand_in = optional(source, Dataset.stand_in)()
    if stand_in is None:
        return World(made_up_store(cache), "made up", own=False)
    options = dict(stand_in)
    component = Component(str(options.pop("name")), options)
    store = build_store(registry.build("datasets", component), name=component.name, cache=cache)
    return World(cut_down(store), f"{component.name}, as {dataset.name} says", own=False)


def cut_down(store: Store, *, users: int = USERS, events: int = EVENTS) -> Store:
    """The store with a random sample of its users, the same each time, and with their newest events. Its columns are in
    memory; its catalogue of items is whole."""
    rows = np.arange(len(store.offsets) - 1)
    if len(rows) > users:
        rows = np.sort(np.random.default_rng(0).choice(rows, users, replace=False))
    stops = np.asarray(store.offsets[rows + 1])
    counts = np.minimum(stops - store.offsets[rows], events)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    places = np.repeat(stops - counts - offsets[:-1], counts) + np.arange(offsets[-1])
    catalogue, table = store.catalogue, store.catalogue.user_features
    described = replace(table, values=np.asarray(table.values[rows])) if table.fields else table
    return replace(
        store,
        catalogue=replace(
            catalogue, num_users=len(rows), user_ids=np.asarray(catalogue.user_ids)[rows], user_features=described
        ),
        offsets=offsets,
        items=np.asarray(store.items[places]),
        actions=np.asarray(store.actions[places]),
        times=np.asarray(store.times[places]),
    )


def made_up_store(path: Path, *, users: int = USERS, items: int = ITEMS) -> Store:
    """A store in memory from a fixed seed: three actions, times, categorical fields of items and users, one of them
    with several values, an embedding, a text, and candidates of which some have no event. path: what the store says it
    lies in; nothing is written there."""
    random = np.random.default_rng(0)
    indexed = items - items // 20
    lengths = random.integers(2, EVENTS + 1, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    popularity = 1 / np.arange(1, indexed + 1)
    met = 1 + random.choice(indexed, offsets[-1], p=popularity / popularity.sum())
    actions = FIRST_ACTION + random.choice(len(ACTIONS), offsets[-1], p=[0.7, 0.2, 0.1])
    times = random.integers(FIRST_TIME, LAST_TIME, offsets[-1])
    times = times[np.lexsort((times, np.repeat(np.arange(users), lengths)))]
    present = np.append(False, random.random(items) < 0.9)
    vectors = np.where(present[:, None], random.standard_normal((items + 1, 16)), 0)
    titles = [""] + [f"item {number} of group {number % 7}" for number in range(1, items + 1)]
    return Store(
        path=path,
        digest="made up",
        catalogue=Catalogue(
            num_users=users,
            num_items=items,
            num_indexed=indexed,
            actions=ACTIONS,
            has_times=True,
            item_ids=np.append(0, 1_000_000 + random.permutation(items)),
            user_ids=1_000 + random.permutation(users),
            item_features=_fields(random, items, ("category", 20, 1), ("brand", 50, 1), ("tags", 9, 3), padded=True),
            user_features=_fields(random, users, ("age", 8, 1), ("interests", 12, 2)),
            embeddings={"content": Embedding(vectors.astype(np.float16), present)},
            texts={"title": _texts(titles)},
        ),
        offsets=offsets,
        items=met.astype(np.int32),
        actions=actions.astype(np.int8),
        times=times.astype(np.int64),
        candidates=np.sort(1 + random.choice(items, items - items // 6, replace=False)),
        notes={},
    )


def _fields(
    random: np.random.Generator, rows: int, *fields: tuple[str, int, int], padded: bool = False
) -> FeatureTable:
    """A table of fields, each given as name, number of values and width. padded: with a row 0 of zeros before."""
    columns, described, start = [], [], 0
    for name, size, width in fields:
        columns.append(FIRST_VALUE + random.integers(size, size=(rows, width)))
        described.append(Field(name, size + FIRST_VALUE, start, width))
        start += width
    values = np.concatenate(columns, axis=1).astype(np.int32)
    return FeatureTable(tuple(described), np.pad(values, ((int(padded), 0), (0, 0))))


def _texts(texts: list[str]) -> TextColumn:
    encoded = [text.encode() for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in encoded])]).astype(np.int64)
    return TextColumn(offsets, np.frombuffer(b"".join(encoded), np.uint8))
