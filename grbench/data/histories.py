"""Visible ranges of users' events. Training, encoders and retrievers read a store's events through them alone, so that
they cannot read an event that the protocol hides.

Shapes: R rows, n some rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from grbench.data.store import Store

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Events:
    """The events of n consecutive rows. offsets: [n+1]; row r's events are offsets[r]:offsets[r+1] of the columns
    items, actions and times; users: [n]."""

    users: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    actions: np.ndarray
    times: np.ndarray


class Histories:
    """Row r has the events starts[r]:stops[r] of the store's event columns.

    users, starts, stops: [R] int64.
    """

    def __init__(self, store: Store, users: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
        self.users = users
        self._starts, self._stops = starts, stops
        self._items, self._actions, self._times = store.items, store.actions, store.times

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        """[R] int64, number of events of each row."""
        lengths: np.ndarray = self._stops - self._starts
        return lengths

    def select(self, rows: np.ndarray) -> Histories:
        """The ranges of some rows [n]."""
        chosen = object.__new__(Histories)
        chosen.users = self.users[rows]
        chosen._starts, chosen._stops = self._starts[rows], self._stops[rows]
        chosen._items, chosen._actions, chosen._times = self._items, self._actions, self._times
        return chosen

    def newest(self, rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """rows [n] -> items, action tokens and times, each [n, length] int64, of each row's newest events, left-padded
        with 0."""
        return self.up_to(rows, self._stops[rows] - self._starts[rows], length)

    def up_to(self, rows: np.ndarray, stops: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Like `newest`, but of the `length` events up to and including each row's event number stops [n] (1 = its
        first event)."""
        starts = self._starts[rows]
        positions = (starts + stops)[:, None] + np.arange(-length, 0)
        hidden = positions < starts[:, None]
        np.maximum(positions, 0, out=positions)
        if not len(self._items):
            empty = np.zeros_like(positions)
            return empty, empty, empty

        def gather(column: np.ndarray) -> np.ndarray:
            values: np.ndarray = column[positions].astype(np.int64)
            values[hidden] = 0
            return values

        return gather(self._items), gather(self._actions), gather(self._times)

    def contain(self, items: np.ndarray) -> np.ndarray:
        """items [R, G], 0 = none -> [R, G] bool, whether each is an item of its row."""
        found = np.zeros(items.shape, bool)
        for first in range(0, len(self), ROWS_AT_ONCE):
            rows = np.arange(first, min(first + ROWS_AT_ONCE, len(self)))
            present = self.items_of(rows)
            for column in range(items.shape[1]):  # few; comparing is much faster than sorting, as np.isin does
                found[rows, column] = (present == items[rows, column, None]).any(axis=1)
        return found & (items > 0)

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """rows [n] -> [n, longest history] int64, all items of each row, left-padded with 0."""
        longest = int(self.lengths[rows].max(initial=1))
        return self.newest(rows, max(longest, 1))[0]

    def stream(self, events_at_once: int = 1 << 22) -> Iterator[Events]:
        """Yields all events, in row order, in blocks of whole rows with about `events_at_once` events."""
        lengths = self.lengths
        ends = np.cumsum(lengths)
        first = 0
        while first < len(self):
            done = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, done + events_at_once, side="right")), first + 1)
            counts = lengths[first:last]
            offsets = np.concatenate([[0], np.cumsum(counts)])
            starts, stop = self._starts[first:last], int(self._stops[last - 1])
            where: slice | np.ndarray
            if int(offsets[-1]) == stop - int(starts[0]) and np.all(np.diff(starts) >= 0):
                where = slice(int(starts[0]), stop)  # contiguous rows: a slice is faster than a gather
            else:
                where = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
            yield Events(self.users[first:last], offsets, self._items[where], self._actions[where], self._times[where])
            first = last
