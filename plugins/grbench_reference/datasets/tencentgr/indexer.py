"""Reads `indexer.pkl`, which maps raw ids to consecutive ones, without executing code that a pickle may contain."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from grbench.errors import DataError, first_line


def _nothing() -> None:
    """Stands for the types that the file's default factories make, which are never called here."""


def _empty_dict(*_: Any) -> dict[Any, Any]:
    """Stands for defaultdict: called with the default factory, and filled afterwards. It copies nothing, so that no
    pickle can take much more memory than its file has bytes."""
    return {}


# The only names that the release's file imports: a defaultdict, and the types that its default factories make.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "defaultdict"): _empty_dict,
    **{(module, name): _nothing for module in ("builtins", "__builtin__") for name in ("dict", "int", "list")},
}

# What `pickle` may raise on truncated or invalid bytes, according to its documentation.
_DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True)
class Indexer:
    """The content of `indexer.pkl` that grbench uses.

    item_ids:   [N+1] int64, the raw creative id (OID) of each numbered item (RID); 0 at row 0. OIDs exceed 2^31.
    num_users:  number of users
    vocabulary: the largest value id of each feature
    """

    item_ids: np.ndarray
    num_users: int
    vocabulary: dict[str, int]

    @property
    def num_items(self) -> int:
        """N, the number of items."""
        return len(self.item_ids) - 1


def read_indexer(path: Path) -> Indexer:
    """Reads the file at `path`; raises DataError where it is missing, damaged, or imports anything else.

    Its dictionaries are the only part of the ingest whose memory grows with the data; they are converted to arrays one
    by one and freed.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, path).load()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); it should be at the root of the release"
        ) from error
    except _DAMAGED as error:
        raise DataError(f"{path}: damaged or truncated ({first_line(error)}); download it again") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in "iuf"):
        raise DataError(
            f"{path}: is not an indexer of the release, which is a dictionary of the dictionaries i, u and f"
        )
    num_users = len(content.pop("u"))
    item_ids = _item_ids(content.pop("i"), path)
    return Indexer(item_ids, num_users, _vocabulary(content.pop("f"), path))


def _vocabulary(values: dict[Any, Any], path: Path) -> dict[str, int]:
    """{feature: {raw value: value id}} -> the largest value id of each feature."""
    try:
        return {str(feature): int(max(ids.values(), default=0)) for feature, ids in values.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: dictionary f should map each feature to its value ids ({first_line(error)})"
        ) from error


def _item_ids(numbers: dict[Any, Any], path: Path) -> np.ndarray:
    """{OID: RID} -> [N+1] OIDs by RID; raises DataError unless the RIDs are 1..N, each once."""
    count = len(numbers)
    try:
        oids = np.fromiter(numbers.keys(), np.int64, count)
        rids = np.fromiter(numbers.values(), np.int64, count)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: dictionary i should map int64 ids to int64 ids ({first_line(error)})") from error
    if not count or rids.min() != 1 or rids.max() != count or np.bincount(rids, minlength=count + 1)[1:].max() != 1:
        raise DataError(f"{path}: dictionary i should number its {count:,} items from 1 to {count:,}, each once")
    item_ids = np.zeros(count + 1, np.int64)
    item_ids[rids] = oids
    return item_ids


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"{self._path}: tries to import {module}.{name}; the release's indexer needs only dict and "
                "collections.defaultdict, so this file is not the release's. None of its code was executed"
            )
        return _ALLOWED[module, name]
