"""The dataset `interactions`: any log of user-item interactions, from JSON, CSV or parquet.

Items are numbered by the rank of their ids, from 1; so an item with the id 0 in the source is not taken for padding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from pydantic import Field

from grbench.data.store import store_size
from grbench.errors import DataError
from grbench.interfaces import Dataset
from grbench.types import ACTION_MISSING, FIRST_ACTION, Finding, Progress
from grbench_reference.datasets.interactions.files import (
    SUFFIXES,
    Columns,
    Log,
    ids_of,
    read_first,
    read_json,
    read_table,
)
from grbench_reference.datasets.parquet_parts import to_integers

if TYPE_CHECKING:
    from grbench.data.store_writer import StoreWriter

# Incremented when the same source gives a different store than before.
_READER_VERSION = 1
_MOST_ACTIONS = 127 - FIRST_ACTION + 1  # tokens are int8
_NULL = -(2**63)


class Interactions(Dataset):
    """A log of interactions: JSON `{user: [item, ...]}`, oldest first, or a CSV or parquet table of one event per row.

    Args:
        path: the file, or its folder. In a folder it is the one `*.inter.json`, else the only file with a known suffix,
            else all parquet files.
        file: name of the file in the folder, where there are several.
        user: column of user ids (tables only, like the next three).
        item: column of item ids, integers or text.
        timestamp: column of unix seconds or of dates and times; null = there is none, and rows are in order of time.
        action: column of actions, as names or integers; null = there is none.
        actions: names of the actions; the number a in the column means the a-th name, from 0; null = the values that
            occur, sorted.
        min_events: users with fewer events are dropped, before items are numbered.
    """

    def __init__(
        self,
        *,
        path: Path,
        file: str | None = None,
        user: str = "user",
        item: str = "item",
        timestamp: str | None = "timestamp",
        action: str | None = None,
        actions: Sequence[str] | None = None,
        min_events: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        self._path, self._file = Path(path).expanduser(), file
        self._columns = Columns(user, item, timestamp, action)
        self._actions = None if actions is None else tuple(actions)
        self._min_events = min_events

    @classmethod
    def recognises(cls, path: str | Path) -> bool:
        """Whether `path` is a file with a known suffix, or a folder with exactly one (or with parquet files only)."""
        try:
            return bool(cls(path=Path(path))._source())
        except DataError:
            return False

    def digest(self) -> str:
        """sha256 of the file's content and the options; raises DataError where the file is missing."""
        source = self._source()
        options = [_READER_VERSION, *vars(self._columns).values(), self._actions, self._min_events]
        digest = hashlib.sha256(json.dumps(options).encode())
        for path in sorted(source.glob("*.parquet")) if source.is_dir() else [source]:
            try:
                with path.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        return digest.hexdigest()

    def store_bytes(self) -> int | None:
        """An estimate: a small log is read, a large one extrapolated from its first events. None where these cannot be
        read without the rest."""
        first = read_first(self._source(), self._columns)
        if first is None:
            return None
        if not len(first.users):
            return 0
        scale = first.total / len(first.users)
        # Where each user's events are contiguous, no user of the first events occurs again later.
        contiguous = bool((np.diff(first.users) >= 0).all())
        lengths = np.bincount(first.users)
        items = first.items.dictionary_encode()
        kept = lengths >= self._min_events
        if scale == 1 or contiguous:
            lengths = lengths[kept]
            items = items.filter(pa.array(kept[first.users]))
        occurrences = np.bincount(items.indices.to_numpy(), minlength=1)
        return store_size(
            events=int(lengths.sum() * scale),
            users=int(len(lengths) * scale if contiguous else _expected_distinct(lengths, scale)),
            items=int(_expected_distinct(occurrences[occurrences > 0], scale)),
            user_id_bytes=first.user_ids.itemsize,
            item_id_bytes=ids_of(items.dictionary).itemsize,
        )

    def write(self, writer: StoreWriter) -> None:
        """Writes the log into `writer`; raises DataError naming file, column and row of a fault."""
        source = self._source()
        writer.report(source.name, 0, None)
        log = self._read(source)
        all_users, log = len(log.lengths), self._drop_short(log)
        if not len(log.lengths):
            raise DataError(
                f"{source}: none of its {all_users} users has {self._min_events} events or more (min_events)"
            )
        item_ids, items = number_items(log.items)
        writer.actions, tokens = ("interaction",), np.full(len(items), FIRST_ACTION, np.int8)
        if log.actions is not None:
            writer.actions, tokens = action_tokens(
                log.actions, self._actions, f"{source}: column {self._columns.action}"
            )
        writer.has_times = log.times is not None
        writer.set_items(item_ids)
        times = np.zeros(len(items), np.int64) if log.times is None else log.times
        writer.add_users(log.user_ids, log.lengths, items, tokens, times)
        writer.notes |= {
            "file": source.name,
            "users_with_fewer_events_than_min_events": all_users - len(log.lengths),
            "events_without_action": int((tokens == ACTION_MISSING).sum()),
        }
        writer.report(source.name, len(items), len(items))

    def validate(self, progress: Progress) -> list[Finding]:
        """Reads the whole log and reports its size, or the first fault."""
        source = self._source()
        progress(source.name, 0, None)
        try:
            log = self._read(source)
            item_ids, items = number_items(log.items)
            detail = f"{len(log.lengths):,} users, {len(item_ids) - 1:,} items, {len(items):,} events"
            if len(log.lengths):
                detail += f", {log.lengths.min():,} to {log.lengths.max():,} a user"
            detail += "; no times: in file order" if log.times is None else ""
            if log.actions is not None:
                where = f"{source}: column {self._columns.action}"
                detail += f"; actions {', '.join(action_tokens(log.actions, self._actions, where)[0])}"
        except DataError as error:
            return [Finding(source.name, "problem", None, str(error))]
        progress(source.name, len(items), len(items))
        return [Finding(source.name, "ok", len(items), detail)]

    def _read(self, source: Path) -> Log:
        return read_json(source) if source.suffix == ".json" else read_table(source, self._columns)

    def _drop_short(self, log: Log) -> Log:
        """The log without users of fewer than min_events events."""
        kept = log.lengths >= self._min_events
        if kept.all():
            return log
        events = np.repeat(kept, log.lengths)
        return Log(
            user_ids=log.user_ids[kept],
            lengths=log.lengths[kept],
            items=log.items.filter(pa.array(events)),
            times=None if log.times is None else log.times[events],
            actions=None if log.actions is None else log.actions.filter(pa.array(events)),
        )

    def _source(self) -> Path:
        """The file, or the folder of parquet files; raises DataError where there is none, or several."""
        path = self._path if self._file is None else self._path / self._file
        if not path.exists():
            raise DataError(f"{path}: does not exist; the options path and file should name a log of interactions")
        if path.is_file():
            if path.suffix not in SUFFIXES:
                raise DataError(f"{path}: has an unknown suffix; known are {', '.join(SUFFIXES)}")
            return path
        found = sorted(child for child in path.iterdir() if child.suffix in SUFFIXES)
        named = [child for child in found if child.name.endswith(".inter.json")]
        if len(named or found) == 1:
            return (named or found)[0]
        if not found:
            raise DataError(f"{path}: holds no log of interactions; known kinds are {', '.join(SUFFIXES)}")
        if all(child.suffix == ".parquet" for child in found):
            return path
        raise DataError(f"{path}: holds {', '.join(child.name for child in found)}; choose one with the option file")


def _expected_distinct(occurrences: np.ndarray, scale: float) -> float:
    """The number of distinct ids in a log that is `scale` times as long as a sample: Chao's estimate (Scandinavian
    Journal of Statistics, 1984) from the ids that occur once and twice. occurrences: [n] of each id in the sample."""
    once, twice = int((occurrences == 1).sum()), int((occurrences == 2).sum())
    return min(len(occurrences) * scale, len(occurrences) + once * (once - 1) / (2 * (twice + 1)))


def number_items(items: Any) -> tuple[np.ndarray, np.ndarray]:
    """Arrow ids [E] -> (item_ids [N+1], row 0 = padding, then sorted; rows [E] int64, 1 + rank of the id)."""
    encoded = items.dictionary_encode()
    distinct = ids_of(encoded.dictionary)
    order = np.argsort(distinct)
    rows = np.empty(len(distinct), np.int64)
    rows[order] = np.arange(1, len(distinct) + 1)
    padding = np.zeros(1, distinct.dtype)
    return np.concatenate([padding, distinct[order]]), rows[encoded.indices.to_numpy()]


def action_tokens(column: Any, names: Sequence[str] | None, where: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Actions [E] as names or numbers -> (names, tokens [E] int8, null = ACTION_MISSING). Raises DataError where a
    value is not an action, or there are none or too many."""
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pt.is_string(column.type) or pt.is_large_string(column.type):
        encoded = column.dictionary_encode()
        found = encoded.dictionary.to_pylist()
        known = tuple(sorted(found) if names is None else names)
        indices = [known.index(name) if name in known else -1 for name in found]
        numbers = np.array([*indices, _NULL])[encoded.indices.fill_null(len(found)).to_numpy()]
    elif pt.is_integer(column.type) or pt.is_floating(column.type) or pt.is_boolean(column.type):
        try:
            numbers = to_integers(column, null=_NULL)
        except pa.ArrowInvalid as error:
            raise DataError(f"{where}: actions should be names or integers ({error})") from error
        known = tuple(names or ())
        if names is None:
            values = np.unique(numbers[numbers != _NULL])
            known = tuple(map(str, values.tolist()))
            numbers = np.where(numbers == _NULL, _NULL, np.searchsorted(values, numbers))
    else:
        raise DataError(f"{where} is {column.type}; actions should be names or integers")
    if not known or len(known) > _MOST_ACTIONS or len(set(known)) < len(known):
        raise DataError(
            f"{where}: has {len(known)} kinds of action; there can be 1 to {_MOST_ACTIONS}, with different names"
        )
    wrong = (numbers != _NULL) & ((numbers < 0) | (numbers >= len(known)))
    if wrong.any():
        raise DataError(
            f"{where} has {column[int(np.flatnonzero(wrong)[0])].as_py()!r}; actions are {', '.join(known)}"
        )
    return known, np.where(numbers == _NULL, ACTION_MISSING, numbers + FIRST_ACTION).astype(np.int8)
