"""The dataset `tencentgr_synthetic`: synthetic data in TencentGR's layout, read by the same code as the release."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from grbench.data.store import store_size
from grbench.interfaces import Dataset
from grbench.registry.option_types import Seed
from grbench_reference.datasets.synthetic.generator import (
    MIN_ITEMS,
    MIN_USERS,
    VERSION,
    estimated_bytes,
    generate,
)
from grbench_reference.datasets.synthetic.schema import RELEASES, pool_size
from grbench_reference.datasets.tencentgr.dataset import READER_VERSION, TencentGR
from grbench_reference.datasets.tencentgr.layout import ITEM_FEATURES

if TYPE_CHECKING:
    from grbench.data.store_writer import StoreWriter


class TencentGRSynthetic(Dataset):
    """Synthetic data in TencentGR's layout, at any size, with structure that better methods can learn.

    It is generated when first used and kept as a store only; `grbench data synth` writes the same data as a release.

    Args:
        users: number of users, at least 10.
        items: number of ads, at least 50; cold candidates are added to them.
        actions: 2 = exposure and click, as TencentGR-1M; 3 = also conversion, as TencentGR-10M.
        seed: of the generator; the same options always give the same data.
        embeddings: content embeddings to read: [81] or [].
    """

    def __init__(
        self,
        *,
        users: Annotated[int, Field(ge=MIN_USERS)] = 4000,
        items: Annotated[int, Field(ge=MIN_ITEMS)] = 5000,
        actions: Literal[2, 3] = 2,
        seed: Seed = 0,
        embeddings: Sequence[int | str] = (81,),
    ) -> None:
        self._users, self._items, self._actions, self._seed = users, items, actions, seed
        self._embeddings = tuple(str(embedding) for embedding in embeddings)

    def digest(self) -> str:
        """sha256 of the options, the versions of generator and reader, and numpy's major version."""
        identity = {
            "generator": VERSION,
            "reader": READER_VERSION,
            "numpy": np.__version__.split(".")[0],
            "users": self._users,
            "items": self._items,
            "actions": self._actions,
            "seed": self._seed,
            "embeddings": self._embeddings,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def store_bytes(self) -> int:
        """An estimate of the store and of the temporary release from which it is built."""
        release = RELEASES[self._actions]
        pool = pool_size(self._items, release)
        store = store_size(
            events=int(self._users * release.lengths),
            users=self._users,
            items=self._items + pool // 4,
            candidates=pool,
            user_columns=15,
            item_columns=len(ITEM_FEATURES),
            embeddings=[32] * len(self._embeddings),
        )
        return store + estimated_bytes(self._users, self._items, release)

    def stand_in(self) -> dict[str, Any]:
        """The same with fewer users and items."""
        return {
            "name": "tencentgr_synthetic",
            "users": min(self._users, 1200),
            "items": min(self._items, 600),
            "actions": self._actions,
            "embeddings": list(self._embeddings),
        }

    def write(self, writer: StoreWriter) -> None:
        """Generates a release in the store's folder, reads it into `writer`, and removes it."""
        with tempfile.TemporaryDirectory(prefix="release-", dir=writer.folder) as folder:
            release = Path(folder) / "release"
            generate(
                release,
                users=self._users,
                items=self._items,
                actions=self._actions,
                seed=self._seed,
                report=writer.report,
            )
            TencentGR(path=release, embeddings=self._embeddings, actions=self._actions).write(writer)
        writer.notes["synthetic"] = {"users": self._users, "items": self._items, "seed": self._seed, "version": VERSION}
