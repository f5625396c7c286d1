"""A dataset as read-only, memory-mapped `.npy` columns. A store is built once from a source and reused as long as the
source's digest stays the same; `store.json` is written last, so a folder without it is not a store.

Shapes: U users, E events, N items (item 0 is padding), n some items, P candidates, C feature columns, d embedding
width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from grbench.data.ties import Ties
from grbench.errors import DataError

STORE_FORMAT = 1
STORE_FILE = "store.json"
HEADER_BYTES = 1 << 10
"""An upper bound of the size of an `.npy` file's header."""


@dataclass(frozen=True)
class Field:
    """One categorical feature: its codes, below `size`, are in columns `start` to `start + width` of the table.

    A multi-value feature has width > 1 and is padded with 0. Codes 0, 1, 2 are padding, missing and unknown.
    """

    name: str
    size: int
    start: int
    width: int = 1


@dataclass(frozen=True)
class FeatureTable:
    """Categorical features. values: [rows, C] int32 feature codes."""

    fields: tuple[Field, ...]
    values: np.ndarray


@dataclass(frozen=True)
class Embedding:
    """Content embeddings of items. values: [N+1, d] float16, 0 where missing; present: [N+1] bool."""

    values: np.ndarray
    present: np.ndarray


@dataclass(frozen=True)
class TextColumn:
    """One UTF-8 text per item or user. offsets: [rows + 1] int64; row i's bytes are offsets[i]:offsets[i+1] of
    `encoded`, a uint8 array. Padding (item 0) and items without a text have the empty text."""

    offsets: np.ndarray
    encoded: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, items: np.ndarray) -> list[str]:
        """items [n] -> n texts; only their bytes are read from disk."""
        import pyarrow as pa

        texts: list[str] = self._arrow().take(pa.array(np.asarray(items, np.int64))).to_pylist()
        return texts

    def all(self) -> np.ndarray:
        """[rows] all texts, of numpy's StringDType."""
        return np.asarray(self._arrow().to_numpy(zero_copy_only=False)).astype(np.dtypes.StringDType())

    def _arrow(self) -> Any:
        import pyarrow as pa

        return pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(self.offsets), pa.py_buffer(self.encoded))


@dataclass(frozen=True)
class Catalogue:
    """Items and users with their features; independent of the split.

    item_ids: [N+1] and user_ids: [U], ids in the source, as int64 or as numpy's StringDType. num_indexed: the number of
    items in the source's catalogue; items with larger rows occur in the candidate table only. actions: names of the
    actions, in order of their tokens. embeddings, texts: by name; empty where the dataset has none.
    """

    num_users: int
    num_items: int
    num_indexed: int
    actions: tuple[str, ...]
    has_times: bool
    item_ids: np.ndarray
    user_ids: np.ndarray
    item_features: FeatureTable
    user_features: FeatureTable
    embeddings: dict[str, Embedding] = field(default_factory=dict)
    texts: dict[str, TextColumn] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """A dataset on disk. offsets: [U+1] int64; user u's events are offsets[u]:offsets[u+1] of the event columns;
    items: [E] int32; actions: [E] int8 tokens; times: [E] int64 unix seconds; candidates: [P] int64, ascending;
    notes: statistics of the dataset's reader, JSON-ready; remarks: sentences on what of the source was left out, and
    what it leaves open; ties: None where there are no times, or where the store is of a grbench that did not count
    them."""

    path: Path
    digest: str
    catalogue: Catalogue
    offsets: np.ndarray
    items: np.ndarray
    actions: np.ndarray
    times: np.ndarray
    candidates: np.ndarray | None
    notes: dict[str, Any]
    remarks: tuple[str, ...] = ()
    ties: Ties | None = None

    @classmethod
    def open(cls, path: Path) -> Store:
        """Maps the store at `path` into memory. Raises DataError where it is missing, damaged or of another format."""
        store_file = Path(path) / STORE_FILE
        if not store_file.is_file():
            raise DataError(f"{path}: not a store (no {STORE_FILE}); remove the folder, it is rebuilt when needed")
        try:
            meta = json.loads(store_file.read_text())
        except ValueError as error:
            raise DataError(f"{path}: {STORE_FILE} is damaged; remove the folder, it is rebuilt when needed") from error
        if meta.get("format") != STORE_FORMAT:
            raise DataError(
                f"{path}: store format {meta.get('format')}, but this grbench reads format {STORE_FORMAT}; "
                "remove the folder, it is rebuilt when needed"
            )

        def column(name: str) -> np.ndarray:
            return _open_column(Path(path) / f"{name}.npy")

        def text(name: str) -> TextColumn:
            return TextColumn(column(f"offsets_of_text_{name}"), column(f"text_{name}"))

        def ids(name: str) -> np.ndarray:
            return text(name).all() if name in meta.get("text_ids", []) else column(name)

        def features(kind: str) -> FeatureTable:
            return FeatureTable(tuple(Field(**row) for row in meta[kind]), column(kind))

        catalogue = Catalogue(
            num_users=meta["num_users"],
            num_items=meta["num_items"],
            num_indexed=meta["num_indexed"],
            actions=tuple(meta["actions"]),
            has_times=meta["has_times"],
            item_ids=ids("item_ids"),
            user_ids=ids("user_ids"),
            item_features=features("item_features"),
            user_features=features("user_features"),
            embeddings={
                name: Embedding(column(f"embedding_{name}"), column(f"embedding_{name}_present"))
                for name in meta["embeddings"]
            },
            texts={name: text(name) for name in meta.get("texts", [])},
        )
        return cls(
            path=Path(path),
            digest=meta["digest"],
            catalogue=catalogue,
            offsets=column("offsets"),
            items=column("items"),
            actions=column("actions"),
            times=column("times"),
            candidates=column("candidates") if meta["has_candidates"] else None,
            notes=meta["notes"],
            remarks=tuple(meta.get("remarks", [])),
            ties=Ties(**meta["ties"]) if meta.get("ties") else None,
        )


def _open_column(path: Path) -> np.ndarray:
    try:
        try:
            array: np.ndarray = np.load(path, mmap_mode="r")
        except ValueError:  # an empty array cannot be mapped
            if path.stat().st_size > HEADER_BYTES:
                raise
            array = np.load(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{path.parent}: the store lacks {path.name}; remove the folder, it is rebuilt when needed"
        ) from error
    except (ValueError, EOFError) as error:
        raise DataError(
            f"{path.parent}: {path.name} is damaged; remove the folder, it is rebuilt when needed"
        ) from error
    return array


def store_size(
    *,
    events: int,
    users: int,
    items: int,
    candidates: int = 0,
    user_columns: int = 0,
    item_columns: int = 0,
    embeddings: Sequence[int] = (),
    user_id_bytes: float = 8,
    item_id_bytes: float = 8,
) -> int:
    """Bytes of a store's columns. events, users, items, candidates: their numbers; *_columns: columns of the feature
    tables; embeddings: widths; *_id_bytes: bytes of an id as the store keeps it, on average."""
    event_bytes = 4 + 1 + 8  # item, action, time
    user_bytes = user_id_bytes + 4 * user_columns
    item_bytes = item_id_bytes + 4 * item_columns + sum(2 * width + 1 for width in embeddings)
    index_bytes = 8 * (users + 1 + candidates)  # int64 offsets and candidates
    return int(events * event_bytes + users * user_bytes + (items + 1) * item_bytes + index_bytes)
