"""Writing a store: columns are streamed to a temporary folder, which is renamed once it is complete.

Shapes: U users, N items, C feature columns, P candidates.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from grbench.data.store import STORE_FILE, STORE_FORMAT, Field, Store
from grbench.data.ties import Ties, count_ties
from grbench.errors import DataError
from grbench.interfaces import Dataset
from grbench.registry.source_hash import source_hash
from grbench.temporary import beside, remove_leftovers
from grbench.types import Progress

if TYPE_CHECKING:
    import pyarrow as pa

CHECKED_BYTES = 1 << 26
"""Bytes of an embedding that are checked at once."""


def no_progress(task: str, done: int, total: int | None) -> None:
    """A Progress that does nothing."""


def store_digest(reader: type, source: str, contents: Mapping[str, Any]) -> str:
    """16 hex digits of a hash of the store's format, the reader's source code, the source's digest and the contents of
    the files that options name.

    reader: the dataset's class; another version of its code may read the same files differently. contents: as
    `registry.options.file_contents` returns them.
    """
    files = json.dumps(contents, sort_keys=True)
    return hashlib.sha256(f"{STORE_FORMAT} {source_hash(reader)} {source} {files}".encode()).hexdigest()[:16]


def store_folder(cache: Path, name: str, digest: str) -> Path:
    """The folder of the store with this digest; the store is complete once the folder has a `store.json`."""
    return Path(cache) / f"{name}-{digest}"


def build_store(
    dataset: Dataset,
    *,
    name: str,
    cache: Path,
    contents: Mapping[str, Any] = MappingProxyType({}),
    report: Progress = no_progress,
) -> Store:
    """Opens the store of `dataset` in the folder `cache`; builds it first where none with its digest exists.

    contents: of the files that the dataset's options name, as `registry.options.file_contents` returns them.
    Raises DataError where the source is missing or malformed, or the disk is full; an incomplete store is removed.
    """
    remove_leftovers(cache)
    digest = store_digest(type(dataset), dataset.digest(), dict(contents))
    folder = store_folder(cache, name, digest)
    if (folder / STORE_FILE).is_file():
        return Store.open(folder)
    with beside(folder) as partial:
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise DataError(
                f"{cache}: the store cache cannot be written ({error.strerror}); set GRBENCH_CACHE to another folder"
            ) from error
        try:
            writer = StoreWriter(partial, report)
            dataset.write(writer)
            writer.finish(digest)
            if not (folder / STORE_FILE).is_file():  # else another process has built it in the meantime
                shutil.rmtree(folder, ignore_errors=True)  # no store
                partial.rename(folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DataError(
                    f"{cache}: no space left while building the store; free some, or set GRBENCH_CACHE to a folder on "
                    "a larger disk. The incomplete store was removed"
                ) from error
            raise
    return Store.open(folder)


class ColumnWriter:
    """Appends rows to one `.npy` file; `close` writes the number of rows into its header."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.dtype, self.rows = np.dtype(dtype), 0
        self._file: IO[bytes] = path.open("wb")
        self._write_header()

    def append(self, array: np.ndarray) -> None:
        """Appends rows."""
        self._file.write(np.ascontiguousarray(array, dtype=self.dtype).data)
        self.rows += len(array)

    def close(self) -> None:
        """Overwrites the header with the final shape; numpy's header has space for a larger row count."""
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        np.lib.format.write_array_header_1_0(
            self._file,
            {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows,)},
        )


class TextWriter:
    """Appends texts to a column in the order of its rows. padded: row 0 is padding, with an empty text, and the first
    text that is appended is that of row 1."""

    def __init__(self, folder: Path, name: str, *, padded: bool = True) -> None:
        self._offsets = ColumnWriter(folder / f"offsets_of_text_{name}.npy", np.int64)
        self._encoded = ColumnWriter(folder / f"text_{name}.npy", np.uint8)
        self._offsets.append(np.zeros(1 + padded, np.int64))

    @property
    def rows(self) -> int:
        """Number of texts written so far, including the empty one of padding."""
        return self._offsets.rows - 1

    def append(self, texts: Sequence[str | None] | np.ndarray | pa.Array | pa.ChunkedArray) -> None:
        """Appends the next rows' texts; None = the item has none. Arrow arrays are copied without decoding."""
        import pyarrow as pa

        array = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, pa.large_string())
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        for chunk in chunks:
            if not len(chunk):
                continue
            whole = chunk.cast(pa.large_string()).fill_null("")
            _, offsets, encoded = whole.buffers()
            ends = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
            self._offsets.append(ends[1:] - ends[0] + self._encoded.rows)
            if encoded is not None:
                self._encoded.append(np.frombuffer(encoded, np.uint8)[ends[0] : ends[-1]])

    def close(self) -> None:
        """Closes the files; no text can be appended afterwards."""
        self._offsets.close()
        self._encoded.close()


class StoreWriter:
    """Receives a dataset's tables in Dataset.write and writes them as a store.

    A dataset sets `actions` (names, in order of their tokens), `has_times`, and `ties_broken_by` where that is not file
    order, may add statistics to `notes` (JSON-ready) and sentences to `remarks` (what of the source is left out, and
    what it leaves open: `grbench data prepare`, records and tables repeat them), and calls the methods below.
    """

    def __init__(self, folder: Path, report: Progress) -> None:
        self.folder, self.report = folder, report
        self.actions: tuple[str, ...] = ("interaction",)
        self.has_times = True
        self.ties_broken_by = "file_order"
        self._ties = np.zeros(3, np.int64)  # events, users, latest
        self.notes: dict[str, Any] = {}
        self.remarks: list[str] = []
        self._columns = {
            "items": ColumnWriter(folder / "items.npy", np.int32),
            "actions": ColumnWriter(folder / "actions.npy", np.int8),
            "times": ColumnWriter(folder / "times.npy", np.int64),
        }
        self._user_ids: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._fields: dict[str, tuple[Field, ...]] = {"item_features": (), "user_features": ()}
        self._embeddings: list[str] = []
        self._texts: dict[str, TextWriter] = {}
        self._item_ids: np.ndarray | None = None
        self._num_indexed = 0
        self._has_candidates = False

    @property
    def num_users(self) -> int:
        """Number of users added so far."""
        return sum(map(len, self._user_ids))

    @property
    def user_ids(self) -> np.ndarray:
        """[U] ids in the source of the users added so far, in row order."""
        return np.concatenate(self._user_ids) if self._user_ids else np.empty(0, np.int64)

    def add_users(
        self,
        user_ids: np.ndarray,
        lengths: np.ndarray,
        items: np.ndarray,
        actions: np.ndarray,
        times: np.ndarray,
        *,
        repeats_time: np.ndarray | None = None,
    ) -> None:
        """Appends n users with all their events.

        user_ids, lengths (numbers of events): [n], ids are integers or text; items, actions (tokens) and times (unix
        seconds): [sum of lengths], user by user, oldest event first. repeats_time: [sum of lengths] bool, whether an
        event has the time of the event before; only where the source has finer times than seconds, by which the events
        are ordered. Ties are counted by it.
        """
        assert len(items) == len(actions) == len(times) == int(lengths.sum())
        self._ties += count_ties(lengths, times[1:] == times[:-1] if repeats_time is None else repeats_time[1:])
        self._user_ids.append(np.array(user_ids))
        self._lengths.append(np.array(lengths, dtype=np.int32))
        self._columns["items"].append(items)
        self._columns["actions"].append(actions)
        self._columns["times"].append(times)

    def set_items(self, item_ids: np.ndarray, *, num_indexed: int | None = None) -> None:
        """item_ids: [N+1], ids in the source, row 0 = padding. num_indexed: items in the source's catalogue, the first
        ones; the others occur in the candidate table only. None = all."""
        self._item_ids = np.asarray(item_ids)
        self._num_indexed = len(item_ids) - 1 if num_indexed is None else num_indexed

    def create_item_features(self, fields: Sequence[Field]) -> np.memmap:
        """Returns a writable memory map [N+1, C] int32 of zeros. Called after `set_items`."""
        assert self._item_ids is not None
        return self._create_features("item_features", fields, len(self._item_ids))

    def create_user_features(self, fields: Sequence[Field]) -> np.memmap:
        """Returns a writable memory map [U, C] int32 of zeros. Called after all users are added."""
        return self._create_features("user_features", fields, self.num_users)

    def set_item_fields(self, fields: Sequence[Field]) -> None:
        """Replaces the fields' sizes, where they are known only after the values were read; columns stay the same."""
        self._resize("item_features", fields)

    def set_user_fields(self, fields: Sequence[Field]) -> None:
        """Replaces the fields' sizes, as `set_item_fields` does."""
        self._resize("user_features", fields)

    def create_embedding(self, name: str, width: int) -> tuple[np.memmap, np.memmap]:
        """Returns writable memory maps of the values ([N+1, width] float16, zeros) and of which items have one ([N+1]
        bool, False). Called after `set_items`. Vectors with NaN or infinite values count as missing; a remark says how
        many do."""
        assert self._item_ids is not None
        self._embeddings.append(name)
        rows = len(self._item_ids)
        return (
            self._create(f"embedding_{name}", (rows, width), np.float16),
            self._create(f"embedding_{name}_present", (rows,), np.bool_),
        )

    def create_item_text(self, name: str) -> TextWriter:
        """Returns the writer of a text column; N texts must be appended, in the order of items."""
        self._texts[name] = TextWriter(self.folder, name)
        return self._texts[name]

    def set_candidates(self, items: np.ndarray) -> None:
        """items: [P], in any order; duplicates are removed."""
        self._has_candidates = True
        self._save("candidates", np.unique(np.asarray(items, dtype=np.int64)))

    def finish(self, digest: str) -> None:
        """Closes all columns and writes `store.json`.

        Raises DataError where there are no users, items or events, or a text column does not have one text per item.
        """
        for column in self._columns.values():
            column.close()
        for text in self._texts.values():
            text.close()
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, np.int32)
        if self._item_ids is None or len(self._item_ids) < 2 or not lengths.sum():
            raise DataError("the dataset has no users, no items or no events")
        for name in self._embeddings:
            self._clear_not_finite(name)
        for name, text in self._texts.items():
            if text.rows != len(self._item_ids):
                raise DataError(
                    f"text {name}: {text.rows - 1} texts for {len(self._item_ids) - 1} items; write one per item"
                )
        self._save("offsets", np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
        text_ids = [
            name
            for name, ids in (("user_ids", self.user_ids), ("item_ids", self._item_ids))
            if self._save_ids(name, ids)
        ]
        for kind, fields in self._fields.items():
            if not fields:
                np.save(self.folder / f"{kind}.npy", np.empty((0, 0), np.int32))
        for column_file in self.folder.glob("*.npy"):
            with column_file.open("r+b") as file:  # some file systems report a failed write only here
                os.fsync(file.fileno())
        tied, users, latest = map(int, self._ties)
        ties = Ties(tied, users, latest, self.ties_broken_by)
        meta = {
            "format": STORE_FORMAT,
            "digest": digest,
            "num_users": len(lengths),
            "num_items": len(self._item_ids) - 1,
            "num_indexed": self._num_indexed,
            "actions": list(self.actions),
            "has_times": self.has_times,
            "text_ids": text_ids,
            "ties": dataclasses.asdict(ties) if self.has_times else None,
            "item_features": [dataclasses.asdict(field) for field in self._fields["item_features"]],
            "user_features": [dataclasses.asdict(field) for field in self._fields["user_features"]],
            "embeddings": self._embeddings,
            "texts": list(self._texts),
            "has_candidates": self._has_candidates,
            "notes": self.notes,
            "remarks": self.remarks,
        }
        with (self.folder / STORE_FILE).open("w") as file:
            json.dump(meta, file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    def _save(self, name: str, column: np.ndarray) -> None:
        """Like np.save, which does not report a full disk."""
        whole = ColumnWriter(self.folder / f"{name}.npy", column.dtype)
        whole.append(column)
        whole.close()

    def _save_ids(self, name: str, ids: np.ndarray) -> bool:
        """Integers are saved as they are; text by its bytes, since one long id would widen all of a numpy array's.
        Returns whether the ids are text."""
        if is_text := ids.dtype.kind in "TUO":
            text = TextWriter(self.folder, name, padded=False)
            text.append(ids.astype(object))
            text.close()
        else:
            self._save(name, ids)
        return is_text

    def _clear_not_finite(self, name: str) -> None:
        """Sets the vectors with NaN or infinite values to missing."""
        values = np.load(self.folder / f"embedding_{name}.npy", mmap_mode="r+")
        present = np.load(self.folder / f"embedding_{name}_present.npy", mmap_mode="r+")
        step = max(1, CHECKED_BYTES // (values.itemsize * values.shape[1]))
        cleared = 0
        for first in range(0, len(values), step):
            block = slice(first, first + step)
            wrong = np.flatnonzero(~np.isfinite(values[block]).all(axis=1)) + first
            cleared += int(present[wrong].sum())
            present[wrong], values[wrong] = False, 0
        if cleared:
            self.remarks.append(f"embedding {name}: {cleared:,} with NaN or infinite float16 values count as missing")

    def _resize(self, kind: str, fields: Sequence[Field]) -> None:
        resized = tuple(fields)
        before, after = (
            [(field.name, field.start, field.width) for field in each] for each in (self._fields[kind], resized)
        )
        assert before == after
        self._fields[kind] = resized

    def _create_features(self, kind: str, fields: Sequence[Field], rows: int) -> np.memmap:
        self._fields[kind] = tuple(fields)
        return self._create(kind, (rows, max(field.start + field.width for field in fields)), np.int32)

    def _create(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.memmap:
        path = self.folder / f"{name}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        # Reserves the blocks: writing through the map to a full disk would kill the process with SIGBUS.
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array
