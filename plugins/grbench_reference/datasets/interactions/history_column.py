"""Tables with a column that holds a user's history as a list: one row for each prefix of a user's events.

Shapes: R rows, H items of all their lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from grbench.errors import DataError
from grbench_reference.datasets.interactions.columns import IdColumn, read_ids

# What is written between the ids of a list in text: "[1, 2]", "['a', 'b']", "a b".
_BETWEEN_IDS = r"[\s,;\[\]()'\"]+"


@dataclass(frozen=True)
class _Rows:
    """users: [R] and ids: [H, then R items where there is a column of them], with their rows; lengths, starts: [R] of
    each list in `ids`; parts: (where, number of rows) of each."""

    users: IdColumn
    ids: IdColumn
    lengths: np.ndarray
    starts: np.ndarray
    parts: list[tuple[str, int]]

    def error(self, row: int, problem: str) -> DataError:
        """A DataError about a row of all parts."""
        ends = np.cumsum([rows for _, rows in self.parts])
        part = int(np.searchsorted(ends, row, side="right"))
        where, rows = self.parts[part]
        return DataError(f"{where}, row {row - ends[part] + rows}: {problem}")


def read_histories(
    parts: Sequence[tuple[str, Any]], user: str, item: str | None, history: str
) -> tuple[IdColumn, IdColumn]:
    """(users, items) of events, user by user and oldest first. parts: (where, table) of each; user, item, history:
    names of columns.

    A row is an event, its item, and the items before it. The first of a user's rows gives its list too, so that all
    events are there once; rows are put in the order of their lists' lengths. Each list has to be what stands before the
    row's item: all of it, or the newest items where lists are cut to a length. Without `item`, a user's events are the
    longest of the lists, with which the others have to begin. Raises DataError naming a row that is not so.
    """
    rows = _read(parts, user, item, history)
    return _longest(rows) if item is None else _chained(rows)


def _read(parts: Sequence[tuple[str, Any]], user: str, item: str | None, history: str) -> _Rows:
    lists = [(where, _lists(table[history], where, history)) for where, table in parts]
    lengths = np.concatenate([pc.list_value_length(column).fill_null(0).to_numpy() for _, column in lists])
    columns = [(where, column.flatten()) for where, column in lists]
    if item is not None:
        columns += [(where, table[item]) for where, table in parts]
    return _Rows(
        users=read_ids([(where, table[user]) for where, table in parts], user),
        ids=read_ids(columns, history),
        lengths=lengths.astype(np.int64),
        starts=np.cumsum(lengths, dtype=np.int64) - lengths,
        parts=[(where, table.num_rows) for where, table in parts],
    )


def _lists(column: Any, where: str, name: str) -> Any:
    """A column of lists; text is split into the ids that it lists."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pt.is_list(array.type) or pt.is_large_list(array.type):
        return array
    if not pt.is_large_string(array.type):
        raise DataError(f"{where}: column {name} is {array.type}; it should hold lists of items")
    text = pc.utf8_trim_whitespace(pc.replace_substring_regex(array, _BETWEEN_IDS, " "))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.large_list(pa.large_string())), _split(text))


def _split(text: Any) -> Any:
    words = pc.split_pattern(text, " ")
    return words.cast(pa.large_list(pa.large_string()))


def _chained(rows: _Rows) -> tuple[IdColumn, IdColumn]:
    """Events of rows that hold an item and the items before it."""
    order = np.lexsort((rows.lengths, rows.users.rows))
    owner, length = rows.users.rows[order], rows.lengths[order]
    given = np.where(np.diff(owner, prepend=-1) != 0, length, 0)  # items of its list that a row adds
    places = np.cumsum(given + 1) - 1  # of each row's item in the events
    owners = np.repeat(owner, given + 1)
    items = np.empty(len(owners), np.int64)
    items[places] = rows.ids.rows[len(rows.ids.rows) - len(order) + order]
    items[_ranges(places - given, given)] = rows.ids.rows[_ranges(rows.starts[order], given)]
    before = _ranges(places - length, length)
    inside = np.maximum(before, 0)
    wrong = (before < 0) | (owners[inside] != np.repeat(owner, length))
    wrong |= items[inside] != rows.ids.rows[_ranges(rows.starts[order], length)]
    if wrong.any():
        raise rows.error(
            int(order[np.repeat(np.arange(len(order)), length)[wrong][0]]),
            "its list is not what stands before its item in the user's other rows, ordered by their lists' lengths; "
            "where these are in several files, the option file names all of them",
        )
    return IdColumn(rows.users.values, owners, rows.users.trimmed), IdColumn(rows.ids.values, items, rows.ids.trimmed)


def _longest(rows: _Rows) -> tuple[IdColumn, IdColumn]:
    """Events of rows that hold all items of a user so far."""
    order = np.lexsort((rows.lengths, rows.users.rows))
    longest = order[np.append(np.diff(rows.users.rows[order]) != 0, len(order) > 0)]  # one row for each user
    length = rows.lengths[longest]
    beginning = np.repeat(rows.starts[longest][rows.users.rows], rows.lengths)
    offset = _ranges(np.zeros(len(rows.lengths), np.int64), rows.lengths)
    wrong = rows.ids.rows[beginning + offset] != rows.ids.rows
    if wrong.any():
        raise rows.error(
            int(np.repeat(np.arange(len(rows.lengths)), rows.lengths)[wrong][0]),
            "its list is not the beginning of the user's longest list; the option item names the column of the item "
            "that follows each list",
        )
    items = rows.ids.rows[_ranges(rows.starts[longest], length)]
    owners = np.repeat(rows.users.rows[longest], length)
    return IdColumn(rows.users.values, owners, rows.users.trimmed), IdColumn(rows.ids.values, items, rows.ids.trimmed)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, ... (lengths[0] numbers), starts[1], ..., in one array."""
    ends = np.cumsum(lengths)
    moved: np.ndarray = np.repeat(starts - (ends - lengths), lengths)
    return moved + np.arange(len(moved))
