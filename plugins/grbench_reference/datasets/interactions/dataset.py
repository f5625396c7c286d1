"""The dataset `interactions`: any log of user-item interactions, from JSON, delimited text, parquet or lines of text.

Items are numbered by the rank of their ids, from 1; so an item with the id 0 in the source is not taken for padding.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from grbench.data.store import store_size
from grbench.errors import DataError, SuiteError, cut, first_line
from grbench.interfaces import Dataset
from grbench.registry.option_types import Count, Seed
from grbench.types import ACTION_MISSING, FIRST_ACTION, Finding, Progress
from grbench_reference.datasets.interactions.columns import stored_bytes
from grbench_reference.datasets.interactions.log import Log, LogEvents, group_by_user, read_events, read_first
from grbench_reference.datasets.interactions.options import LogFormat, LogLayout, TimeUnit
from grbench_reference.datasets.interactions.source import LogSource, find_files, find_source
from grbench_reference.datasets.parquet_parts import readable, to_integers

if TYPE_CHECKING:
    from grbench.data.store_writer import StoreWriter

# Incremented when the same source gives a different store than before.
_READER_VERSION = 2
_MOST_ACTIONS = 127 - FIRST_ACTION + 1  # tokens are int8
_NULL = -(2**63)

ColumnName = str | int
"""A column by its name or, where a file has no header, by its number from 0."""


class Interactions(Dataset):
    """A log of interactions, in the layouts in which they are published: docs/your_own_data.md has one of each.

    Ids are integers or text; white space around text is not part of an id. Files may be compressed (.gz, .bz2, .zst).

    Args:
        path: the file, or its folder. In a folder it is the one `*.inter.json`, else the only file with a known suffix,
            else all parquet files.
        file: name or pattern of the file in the folder, or several, which are one log, in that order.
        layout: table = one event a row, with columns (.csv, .tsv, .inter, .parquet); json = `{user: [item, ...]}`
            (.json); pairs = `user item` a line; histories = `user item item ...` a line. Items are oldest first but in
            a table with times. null = by the file's suffix.
        user: column of user ids (tables only, like the options below): its name or, with header: false, its number from
            0. RecBole's `user_id:token` is also `user_id`.
        item: column of item ids, integers or text; null only with history.
        timestamp: column of times, as numbers since 1970 or dates and times; null = there is none, and rows are in
            order of time. Events are ordered by all digits, and kept in seconds.
        time_unit: unit of times that are numbers.
        ties_seed: events of a user with equal times are put in a random order by this seed; null = they stay in file
            order. `grbench data stats` and a table's footer have their number.
        action: column of actions, as names or integers; null = there is none.
        actions: names of the actions; the number a in the column means the a-th name, from 0; null = the values that
            occur, sorted.
        history: column with the list of the items before `item`, oldest first, where there is a row for each prefix of
            a user's events; with item: null, the list of all of a user's items. Without timestamp.
        delimiter: the ASCII character between the fields of text; null = by the suffix: comma in .csv, tab in .tsv and
            .inter. Where it is a tab or a space, quotation marks are characters like any other.
        header: whether the first row of text has the columns' names.
        min_events: users with fewer events are dropped, before items are numbered.
    """

    def __init__(
        self,
        *,
        path: Path,
        file: str | Sequence[str] | None = None,
        layout: LogLayout | None = None,
        user: ColumnName = "user",
        item: ColumnName | None = "item",
        timestamp: ColumnName | None = "timestamp",
        time_unit: TimeUnit = "s",
        ties_seed: Seed | None = None,
        action: ColumnName | None = None,
        actions: Sequence[str] | None = None,
        history: ColumnName | None = None,
        delimiter: str | None = None,
        header: bool = True,
        min_events: Count = 1,
    ) -> None:
        if history is not None and timestamp is not None:
            raise SuiteError("dataset.history: lists of items have no times; set dataset.timestamp to null")
        if delimiter is not None and not re.fullmatch(r"[\t !#-~]", delimiter):
            raise SuiteError(
                f"dataset.delimiter: should be one ASCII character, and no quotation mark, got {cut(repr(delimiter))}"
            )
        self._path, self._file, self._layout = Path(path).expanduser(), file, layout
        self._form = LogFormat(
            user=str(user),
            item=_name(item),
            timestamp=_name(timestamp),
            action=_name(action),
            history=_name(history),
            delimiter=delimiter,
            header=header,
            time_unit=time_unit,
        )
        self._actions = None if actions is None else tuple(actions)
        self._min_events, self._ties_seed = min_events, ties_seed

    @classmethod
    def recognises(cls, path: str | Path) -> bool:
        """Whether `path` is a file with a known suffix, or a folder with exactly one (or with parquet files only)."""
        try:
            return bool(find_files(Path(path), None, None))
        except DataError:
            return False

    def digest(self) -> str:
        """sha256 of the files' content and the options; raises DataError where a file is missing."""
        source = self._source()
        options = [_READER_VERSION, dataclasses.asdict(self._form), source.layout, self._actions, self._min_events]
        digest = hashlib.sha256(json.dumps([*options, self._ties_seed]).encode())
        for path in source.files:
            try:
                with path.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        return digest.hexdigest()

    def store_bytes(self) -> int | None:
        """An estimate: a small log is read, a large one extrapolated from its first events. None where these cannot be
        read without the rest."""
        first = read_first(self._source(), self._form)
        if first is None:
            return None
        events, share = first
        users, items = events.users.rows, events.items.rows
        if not len(users):
            return 0
        # Where each user's events are contiguous, no user of the first events occurs again later.
        contiguous = bool((np.diff(users) >= 0).all())
        lengths = np.bincount(users)
        kept = lengths >= self._min_events
        if share == 1 or contiguous:
            lengths, items = lengths[kept], items[kept[users]]
        occurrences = np.bincount(items, minlength=1)
        return store_size(
            events=int(lengths.sum() / share),
            users=int(len(lengths) / share if contiguous else _expected_distinct(lengths, 1 / share)),
            items=int(_expected_distinct(occurrences[occurrences > 0], 1 / share)),
            user_id_bytes=stored_bytes(events.users.values),
            item_id_bytes=stored_bytes(events.items.values),
        )

    def write(self, writer: StoreWriter) -> None:
        """Writes the log into `writer`; raises DataError naming file, column and row of a fault."""
        source = self._source()
        writer.report(source.name, 0, None)
        events, log = self._read(source)
        all_users, log = len(log.lengths), log.users_with(self._min_events)
        item_ids, items = number_items(log.item_ids, log.items)
        writer.actions, tokens = self._tokens(source, log)
        writer.has_times = log.times is not None
        if self._ties_seed is not None:
            writer.ties_broken_by = f"random_order_of_seed_{self._ties_seed}"
        writer.set_items(item_ids)
        writer.add_users(
            log.user_ids,
            log.lengths,
            items,
            tokens,
            np.zeros(len(items), np.int64) if log.times is None else log.times.seconds,
            repeats_time=None if log.times is None else log.times.repeated(),
        )
        writer.notes |= {
            "file": source.name,
            "users_with_fewer_events_than_min_events": all_users - len(log.lengths),
            "events_without_action": int((tokens == ACTION_MISSING).sum()),
        }
        writer.remarks += self._remarks(events, log)
        writer.report(source.name, len(items), len(items))

    def validate(self, progress: Progress) -> list[Finding]:
        """Reads the whole log and reports its size, or the first fault."""
        source = self._source()
        progress(source.name, 0, None)
        try:
            events, log = self._read(source)
            detail = self._described(source, events, log)
        except DataError as error:
            return [Finding(source.name, "problem", None, str(error))]
        progress(source.name, len(log.items), len(log.items))
        return [Finding(source.name, "ok", len(log.items), detail)]

    def _described(self, source: LogSource, events: LogEvents, log: Log) -> str:
        """A log's size and the remarks on it."""
        num_items = len(np.unique(log.items))
        parts = [
            f"{len(log.lengths):,} users, {num_items:,} items, {len(log.items):,} events, "
            f"{log.lengths.min():,} to {log.lengths.max():,} a user"
        ]
        if log.times is None:
            parts.append("no times: in file order")
        if log.actions is not None:
            parts.append(f"actions {', '.join(self._tokens(source, log)[0])}")
        return "; ".join(parts + self._remarks(events, log))

    def _remarks(self, events: LogEvents, log: Log) -> list[str]:
        """What of a log is not as one would expect."""
        counted = {
            "events have user, time, item and action of another": log.repeated_events(),
            "ids were written with white space around them, which was taken off": events.users.trimmed
            + events.items.trimmed,
            "lines are no row: blank, or inside a quoted text": events.lines_without_row,
        }
        return [f"{count:,} {what}" for what, count in counted.items() if count]

    def _read(self, source: LogSource) -> tuple[LogEvents, Log]:
        """The whole log; raises DataError where it cannot be read, or no user has min_events events."""
        events = read_events(source, self._form)
        log = group_by_user(events, self._ties_seed)
        if not (log.lengths >= self._min_events).any():
            raise DataError(
                f"{source.where}: none of its {len(log.lengths)} users has {self._min_events} events or more "
                "(min_events)"
            )
        return events, log

    def _tokens(self, source: LogSource, log: Log) -> tuple[tuple[str, ...], np.ndarray]:
        """(names of the actions, tokens [E])."""
        if log.actions is None:
            return ("interaction",), np.full(len(log.items), FIRST_ACTION, np.int8)
        return action_tokens(log.actions, self._actions, f"{source.where}: column {self._form.action}")

    def _source(self) -> LogSource:
        """The files; raises DataError where there are none, or what they are is not clear."""
        return find_source(self._path, self._file, self._layout)


def _name(column: ColumnName | None) -> str | None:
    return None if column is None else str(column)


def _expected_distinct(occurrences: np.ndarray, scale: float) -> float:
    """The number of distinct ids in a log that is `scale` times as long as a sample: Chao's estimate (Scandinavian
    Journal of Statistics, 1984) from the ids that occur once and twice. occurrences: [n] of each id in the sample."""
    once, twice = int((occurrences == 1).sum()), int((occurrences == 2).sum())
    return min(len(occurrences) * scale, len(occurrences) + once * (once - 1) / (2 * (twice + 1)))


def number_items(ids: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ids [n], items: [E] indices of them -> (item_ids [N+1] of those that occur, row 0 = padding, then sorted; rows
    [E] int64, 1 + rank of the id)."""
    used = np.flatnonzero(np.bincount(items, minlength=len(ids)))
    order = used[np.argsort(ids[used])]
    rows = np.zeros(len(ids), np.int64)
    rows[order] = np.arange(1, len(order) + 1)
    return np.concatenate([np.zeros(1, ids.dtype), ids[order]]), rows[items]


def action_tokens(column: Any, names: Sequence[str] | None, where: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Actions [E] as names or numbers -> (names, tokens [E] int8, null = ACTION_MISSING). Raises DataError where a
    value is not an action, or there are none or too many."""
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pt.is_string(column.type) or pt.is_large_string(column.type):
        encoded = column.dictionary_encode()
        with readable(Path(where), "UTF-8 text"):
            found = encoded.dictionary.to_pylist()
        known = tuple(sorted(found) if names is None else names)
        indices = [known.index(name) if name in known else -1 for name in found]
        numbers = np.array([*indices, _NULL])[encoded.indices.fill_null(len(found)).to_numpy()]
    elif pt.is_integer(column.type) or pt.is_floating(column.type) or pt.is_boolean(column.type):
        try:
            numbers = to_integers(column, null=_NULL)
        except pa.ArrowInvalid as error:
            raise DataError(f"{where}: actions should be names or integers ({first_line(error)})") from error
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
        found = repr(column[int(np.flatnonzero(wrong)[0])].as_py())
        raise DataError(f"{where} has {cut(found)}; actions are {cut(', '.join(known), 300)}")
    return known, np.where(numbers == _NULL, ACTION_MISSING, numbers + FIRST_ACTION).astype(np.int8)
