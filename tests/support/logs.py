"""Logs of interactions as the tests of their reader see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grbench.data.store import Store
from grbench.data.store_writer import build_store
from grbench_reference.datasets.interactions.dataset import Interactions


def store_of(path: Path, cache: Path, **options: Any) -> Store:
    return build_store(Interactions(path=path, **options), name="log", cache=cache)


def histories(store: Store) -> dict[Any, list[Any]]:
    """{source user: [source item, ...]} as the store has it."""
    ids = store.catalogue.item_ids
    return {
        user: ids[store.items[slice(*store.offsets[row : row + 2])]].tolist()
        for row, user in enumerate(store.catalogue.user_ids.tolist())
    }
