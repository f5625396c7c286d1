"""A log of interactions as its files hold it, and grouped by user.

Shapes: U users, E events, e the first of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from grbench.errors import DataError
from grbench_reference.datasets.interactions.columns import IdColumn, TimeColumn, read_actions, read_ids, read_times
from grbench_reference.datasets.interactions.history_column import read_histories
from grbench_reference.datasets.interactions.options import LogFormat, LogLayout
from grbench_reference.datasets.interactions.sequences import ItemLists, read_json, read_lines
from grbench_reference.datasets.interactions.source import LogSource, beginning, open_text
from grbench_reference.datasets.interactions.tables import (
    TextOpener,
    lines_without_row,
    parquet_rows,
    read_delimited,
    read_parquet,
)
from grbench_reference.datasets.parquet_parts import readable

SAMPLED_BYTES, SAMPLED_ROWS = 16 << 20, 1 << 20
"""How much of a large log is read to estimate its size: bytes of a text file, rows of parquet."""


@dataclass(frozen=True)
class LogEvents:
    """The events of a log in file order. users, items: [E], distinct users may have none; times: [E], None without;
    actions: arrow [E] as in the file, None without; lines_without_row: of delimited text."""

    users: IdColumn
    items: IdColumn
    times: TimeColumn | None = None
    actions: Any = None
    lines_without_row: int = 0


@dataclass(frozen=True)
class Log:
    """Events grouped by user, each user's in order of time or, without times, in file order.

    user_ids: [U] int64 or text; lengths: [U] events of each user; item_ids: [n] distinct; items: [E] int64 indices of
    item_ids; times: [E], None without; actions: arrow [E], None without.
    """

    user_ids: np.ndarray
    lengths: np.ndarray
    item_ids: np.ndarray
    items: np.ndarray
    times: TimeColumn | None = None
    actions: Any = None

    def users_with(self, min_events: int) -> Log:
        """The log without users of fewer events."""
        kept = self.lengths >= min_events
        if kept.all():
            return self
        events = np.repeat(kept, self.lengths)
        return Log(
            user_ids=self.user_ids[kept],
            lengths=self.lengths[kept],
            item_ids=self.item_ids,
            items=self.items[events],
            times=None if self.times is None else self.times.take(events),
            actions=None if self.actions is None else self.actions.filter(pa.array(events)),
        )

    def repeated_events(self) -> int:
        """How many events have the user, time, item and action of another one; 0 without times."""
        if self.times is None or not len(self.items):
            return 0
        repeats = self.times.repeated()
        repeats[(np.cumsum(self.lengths) - self.lengths)[self.lengths > 0]] = False
        tied = repeats.copy()
        tied[:-1] |= repeats[1:]
        keys = [np.cumsum(~repeats)[tied], self.items[tied]]
        if self.actions is not None:
            names = self.actions.filter(pa.array(tied)).dictionary_encode(null_encoding="encode")
            keys.append(names.indices.to_numpy())
        order = np.lexsort(keys)
        return int(np.logical_and.reduce([np.diff(key[order]) == 0 for key in keys]).sum())


def group_by_user(events: LogEvents, ties_seed: int | None) -> Log:
    """Events of each user together and in order. Equal times stay in file order; with a seed, in a random order."""
    users, times = events.users, events.times
    keys = [users.rows]
    if times is not None:
        keys = [times.seconds, *keys] if times.fractions is None else [times.fractions, times.seconds, *keys]
        if ties_seed is not None:
            keys = [np.random.default_rng(ties_seed).random(len(users.rows)), *keys]
    order = np.lexsort(keys)
    return Log(
        user_ids=users.values,
        lengths=np.bincount(users.rows, minlength=len(users.values)),
        item_ids=events.items.values,
        items=events.items.rows[order],
        times=None if times is None else times.take(order),
        actions=None if events.actions is None else events.actions.take(pa.array(order)),
    )


def read_events(source: LogSource, form: LogFormat) -> LogEvents:
    """All events of a log; raises DataError naming file, column and row of a fault."""
    if source.layout != "table":
        return _of_lists([(str(file), _lists(file, partial(open_text, file), source)) for file in source.files])
    if source.suffix == ".parquet":
        return _of_table([(str(file), read_parquet(file, form.columns)) for file in source.files], form)
    tables, without_row = [], 0
    for file in source.files:
        opened = partial(open_text, file)
        tables.append((str(file), read_delimited(file, opened, form, form.columns)))
        with readable(file, "CSV"):
            without_row += lines_without_row(file, opened, form, tables[-1][1].num_rows)
    return _of_table(tables, form, without_row)


def read_first(source: LogSource, form: LogFormat) -> tuple[LogEvents, float] | None:
    """(the first e events of a log, without times and actions; the share of the log that they are, 1 where they are
    all, else about). None where they cannot be read without the rest. Raises DataError where they cannot be read."""
    form = replace(form, timestamp=None, action=None)
    if source.suffix == ".parquet":
        total = sum(map(parquet_rows, source.files))
        tables: list[tuple[str, Any]] = []
        for file in source.files:
            if (left := SAMPLED_ROWS - sum(table.num_rows for _, table in tables)) > 0:
                tables.append((str(file), read_parquet(file, form.columns, left)))
        return _of_table(tables, form), sum(table.num_rows for _, table in tables) / max(1, total)
    file = source.files[0]
    with readable(file, "CSV"):
        text, share = beginning(file, SAMPLED_BYTES)
    share *= file.stat().st_size / max(1, source.bytes)
    cut = text if share == 1 else _whole_beginning(text, source.layout)
    share *= len(cut) / max(1, len(text))
    opened = partial(pa.BufferReader, cut)
    try:
        if source.layout != "table":
            return _of_lists([(str(file), _lists(file, opened, source))]), min(1.0, share)
        return _of_table([(str(file), read_delimited(file, opened, form, form.columns))], form), min(1.0, share)
    except DataError:
        if share == 1:
            raise
        return None


def _whole_beginning(text: bytes, layout: LogLayout) -> bytes:
    """Text that is cut anywhere, cut after its last whole line or, in JSON, its last whole list."""
    return text[: text.rfind(b"]") + 1] + b"}" if layout == "json" else text[: text.rfind(b"\n") + 1]


def _lists(file: Path, opened: TextOpener, source: LogSource) -> ItemLists:
    if source.layout != "json":
        return read_lines(file, opened, source.layout)
    with readable(file, "CSV"), opened() as stream:
        text = b"".join(iter(partial(stream.read, SAMPLED_BYTES), b""))
    return read_json(file, text)


def _of_lists(parts: Sequence[tuple[str, ItemLists]]) -> LogEvents:
    users = read_ids([(where, lists.users) for where, lists in parts], "users")
    lengths = np.concatenate([lists.lengths for _, lists in parts])
    items = read_ids([(where, lists.items) for where, lists in parts], "items")
    return LogEvents(IdColumn(users.values, np.repeat(users.rows, lengths), users.trimmed), items)


def _of_table(parts: Sequence[tuple[str, Any]], form: LogFormat, lines_without_row: int = 0) -> LogEvents:
    def column(name: str) -> list[tuple[str, Any]]:
        return [(where, table[name]) for where, table in parts]

    if form.history is not None:
        users, items = read_histories(parts, form.user, form.item, form.history)
    elif form.item is not None:
        users, items = read_ids(column(form.user), form.user), read_ids(column(form.item), form.item)
    else:
        raise DataError(f"{parts[0][0]}: the option item should name the column of items")
    return LogEvents(
        users,
        items,
        times=None if form.timestamp is None else read_times(column(form.timestamp), form.timestamp, form.time_unit),
        actions=None if form.action is None else read_actions(column(form.action), form.action),
        lines_without_row=lines_without_row,
    )
