"""Reads `seq`: each user's events, sorted by time (stably).

Shapes: n users of one batch, e their events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grbench.types import ACTION_MISSING, FIRST_ACTION, Progress
from grbench_reference.datasets.parquet_parts import FaultHandler, PartBatch, PartFolder, to_integers

ACTIONS = ("exposure", "click", "conversion")  # action_type 0, 1, 2

_BATCH_USERS = 16_384  # of at most 100 events: 40 MB as arrow holds them
_NULL = -(2**63)  # no id, action or time is this


@dataclass(frozen=True)
class EventBlock:
    """Users and their events, user by user. user_ids, lengths: [n] int64; items: [e] int64; actions: [e] int8 tokens;
    times: [e] int64 unix seconds."""

    user_ids: np.ndarray
    lengths: np.ndarray
    items: np.ndarray
    actions: np.ndarray
    times: np.ndarray


@dataclass
class EventCounts:
    """Counts over all events read. tokens: [5], events by action token."""

    users: int = 0
    users_without_events: int = 0
    users_sorted_by_time: int = 0
    events: int = 0
    events_without_item: int = 0
    longest_history: int = 0
    first_time: int | None = None
    last_time: int | None = None
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(FIRST_ACTION + len(ACTIONS), np.int64))

    @property
    def actions(self) -> int:
        """3 where there are conversions, else 2."""
        return 3 if self.tokens[FIRST_ACTION + 2] else 2


def read_events(
    folder: PartFolder, *, num_items: int, on_fault: FaultHandler, counts: EventCounts, report: Progress
) -> Iterator[EventBlock]:
    """Yields all users of `folder` in file order, each user's events by time, equal times in file order.

    Events without an item are skipped and counted. Item ids outside 1..num_items, unknown actions and missing users or
    times are reported to `on_fault`.
    """
    for batch in folder.stream(["user_id", "seq"], batch_rows=_BATCH_USERS, report=report):
        block = _order(_read(batch, num_items, on_fault, counts), counts)
        _count(block, counts)
        yield block


def _read(batch: PartBatch, num_items: int, on_fault: FaultHandler, counts: EventCounts) -> EventBlock:
    users = batch.integers("user_id", null=_NULL)
    with batch.reading("seq"):
        lists = batch.array("seq")
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
        events = lists.flatten()
        items = _member(events, "item_id")
        actions = _member(events, "action_type")
        times = _member(events, "timestamp")

    keep = items != _NULL
    counts.events_without_item += int(len(items) - keep.sum())
    faults = (
        (keep & ((items < 1) | (items > num_items)), f"an item_id outside 1..{num_items}, the items of indexer.pkl"),
        (keep & (times == _NULL), "no timestamp; each event needs one, in unix seconds"),
        (
            keep & (actions != _NULL) & ((actions < 0) | (actions >= len(ACTIONS))),
            f"an unknown action_type; known are 0 to {len(ACTIONS) - 1} and null",
        ),
    )
    for wrong, fault in faults:
        if wrong.any():
            row = int(np.searchsorted(np.cumsum(lengths), np.flatnonzero(wrong)[0], side="right"))
            on_fault(batch.error(f"{int(wrong.sum())} event(s) from here on have {fault}", column="seq", row=row))
            keep &= ~wrong
    if not keep.all():
        lengths = np.bincount(np.repeat(np.arange(len(users)), lengths)[keep], minlength=len(users))
        items, actions, times = items[keep], actions[keep], times[keep]
    if (users == _NULL).any():
        row = int(np.flatnonzero(users == _NULL)[0])
        on_fault(batch.error("is null; each row needs a user", column="user_id", row=row))
        has_user = np.repeat(users != _NULL, lengths)
        items, actions, times = items[has_user], actions[has_user], times[has_user]
        users, lengths = users[users != _NULL], lengths[users != _NULL]
    tokens = np.where(actions == _NULL, ACTION_MISSING, actions + FIRST_ACTION).astype(np.int8)
    return EventBlock(users, lengths, items, tokens, times)


def _member(events: pa.Array, name: str) -> np.ndarray:
    return to_integers(pc.struct_field(events, name), null=_NULL)


def _order(block: EventBlock, counts: EventCounts) -> EventBlock:
    """Sorts the events of users that are not sorted by time. The release has no such users, other sources may."""
    backwards = block.times[1:] < block.times[:-1]
    starts = np.cumsum(block.lengths)[:-1]
    backwards[starts[(starts > 0) & (starts < len(block.times))] - 1] = False  # the next event is another user's
    if not backwards.any():
        return block
    user = np.repeat(np.arange(len(block.lengths)), block.lengths)
    unordered = np.zeros(len(block.lengths), np.bool_)
    unordered[user[1:][backwards]] = True
    counts.users_sorted_by_time += int(unordered.sum())
    places = np.flatnonzero(unordered[user])
    order = np.arange(len(user))
    order[places] = places[np.lexsort((block.times[places], user[places]))]  # stable: equal times keep their order
    return EventBlock(block.user_ids, block.lengths, block.items[order], block.actions[order], block.times[order])


def _count(block: EventBlock, counts: EventCounts) -> None:
    counts.users += len(block.user_ids)
    counts.users_without_events += int((block.lengths == 0).sum())
    counts.events += len(block.items)
    counts.longest_history = max(counts.longest_history, int(block.lengths.max(initial=0)))
    counts.tokens += np.bincount(block.actions, minlength=len(counts.tokens))
    if len(block.times):
        first, last = int(block.times.min()), int(block.times.max())
        counts.first_time = first if counts.first_time is None else min(first, counts.first_time)
        counts.last_time = last if counts.last_time is None else max(last, counts.last_time)
