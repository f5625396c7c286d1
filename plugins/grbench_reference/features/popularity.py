"""The popularity of an event's item before the event, in several windows (paper, section 7: the innovation award).

To avoid leaks, only training events on whole UTC days before the event's own day are counted: never the event itself
nor any user's event after it. (OnePiece ranks items by their events in the bucket of the event's own time, including
those after it, which a local hold-out must not do.)

Shapes: B users, T history length, W windows, N items, K distinct days of items, P tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.types import Batch
from grbench_reference.features.bucket_table import BucketTable
from grbench_reference.features.parts import on_device
from grbench_reference.features.time_features import DAY, training_days

EVENTS_AT_ONCE = 1 << 22
DAY_BITS = 15
LAST_DAY = (1 << DAY_BITS) - 2
"""A day since the first training event fits into so many bits; 2^15 days are 89 years."""

_COUNTED: WeakKeyDictionary[TrainingData, DailyCounts] = WeakKeyDictionary()
"""Counts of a split, shared by all encoders that are built for it, as when a suite is planned."""


@dataclass(frozen=True)
class DailyCounts:
    """The days on which each item has training events, and the number of its events before each of those days.

    offsets: [N+2], item i's days are offsets[i]:offsets[i+1] of the others; days: [K+1] int16 since first_day,
    ascending within an item; before: [K+1], training events of all earlier items and days. The last of days is never
    reached. longest: days of the item that has most.

    Numbers are int32 below 2^31 events, so that K days of an item take 6 bytes each: with two events a day on average
    (synthetic, see `event_days`) 3 bytes an event, 0.3 GB for the 91 M events of TencentGR-1M and about 3 GB for the
    986 M of TencentGR-10M, where 6 GB is the worst case. They lie where the encoder does.
    """

    first_day: int
    offsets: np.ndarray
    days: np.ndarray
    before: np.ndarray
    longest: int


def event_days(data: TrainingData) -> DailyCounts:
    """Counts the training events, in memory bounded by 2 bytes an event, some millions of events and the result.

    90 M synthetic events of 4.8 M items over 200 days: 12 s of one core, 0.9 GB at most, of which 0.3 GB are kept.
    Looking up 3 windows of 51,200 events then takes 0.04 s. Raises SuiteError where the dataset has no times.
    """
    if data not in _COUNTED:
        _COUNTED[data] = _count(data)
    return _COUNTED[data]


def _count(data: TrainingData) -> DailyCounts:
    first_day, _ = training_days(data, "popularity_windows")
    counts = data.item_counts()
    places = np.concatenate([[0], np.cumsum(counts)])  # item i's events are places[i]:places[i+1]
    days = np.empty(int(places[-1]), np.int16)
    free = places[:-1].copy()  # where the next event of each item goes
    for events in data.stream(EVENTS_AT_ONCE):
        keys = _keys(events.items, np.clip(events.times // DAY - first_day, 0, LAST_DAY))
        items = keys >> DAY_BITS
        starts = np.flatnonzero(np.diff(items, prepend=-1))
        runs = np.diff(starts, append=len(items))
        days[np.repeat(free[items[starts]] - starts, runs) + np.arange(len(items))] = _days(keys)
        free[items[starts]] += runs
    number = np.int32 if len(days) < 2**31 else np.int64
    # Sorted by item and day, how many events come before a day of an item is where its first one stands.
    before = np.concatenate([*_first_of_each_day(days, places, counts), [len(days)]]).astype(number, copy=False)
    offsets = np.searchsorted(before, places)
    return DailyCounts(
        first_day,
        offsets.astype(number, copy=False),
        np.append(days[before[:-1]], np.int16(0)),
        before,
        int(np.diff(offsets).max()),
    )


def _first_of_each_day(days: np.ndarray, places: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Sorts each item's days, in place, and yields where the first of each stands, some million events at a time."""
    first = 0
    while first < len(counts):
        last = max(int(np.searchsorted(places, places[first] + EVENTS_AT_ONCE, side="right")) - 1, first + 1)
        some = slice(int(places[first]), int(places[last]))
        keys = _keys(np.repeat(np.arange(last - first), counts[first:last]), days[some])
        days[some] = _days(keys)
        found = np.flatnonzero(np.diff(keys, prepend=-1)) + some.start
        yield found.astype(np.int32) if len(days) < 2**31 else found
        first = last


def _keys(items: np.ndarray, days: np.ndarray) -> np.ndarray:
    """[n] int64, sorted by item, then by day."""
    keys: np.ndarray = (items.astype(np.int64) << DAY_BITS) | days
    keys.sort()
    return keys


def _days(keys: np.ndarray) -> np.ndarray:
    """[n] int16, the days of keys."""
    return (keys & ((1 << DAY_BITS) - 1)).astype(np.int16)


class PopularityFeature(nn.Module):
    """The number of training events of each event's item in windows before its day, in buckets that double, embedded
    and summed.

    windows: whole days each. dropout: share of buckets replaced by a learnt row in training.
    Raises SuiteError where the dataset has no times.
    """

    offsets: Tensor
    days: Tensor
    before: Tensor
    shifts: Tensor
    doublings: Tensor

    def __init__(self, data: TrainingData, windows: Sequence[int], width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        counted = event_days(data)
        self.first_day, self.steps = counted.first_day, counted.longest.bit_length()
        sizes = int(data.item_counts().max(initial=0)).bit_length()
        on_device(self, "offsets", counted.offsets)
        on_device(self, "days", counted.days)
        on_device(self, "before", counted.before)
        on_device(self, "shifts", np.array([0, *windows], np.int64))
        on_device(self, "doublings", 1 << np.arange(sizes, dtype=np.int64))
        self.buckets = BucketTable([sizes + 1] * len(windows), width, dropout=dropout)

    def forward(self, batch: Batch, events: Tensor) -> Tensor:
        """events [P] of the flattened [B * T], -1 for a token that is none, which is zero -> [P, D]."""
        vectors: Tensor = self.buckets(self.bucketed(batch.times, batch.items), events)
        return vectors

    def bucketed(self, times: Tensor, items: Tensor) -> Tensor:
        """times, items [B, T] -> [B, T, W] int64: 0 = none, then one a doubling: 1; 2, 3; 4 .. 7; .."""
        return torch.bucketize(self.counts(times, items), self.doublings, right=True)

    def counts(self, times: Tensor, items: Tensor) -> Tensor:
        """times, items [B, T] -> [B, T, W] int64, training events of the item in each window."""
        bounds = (times // DAY - self.first_day).unsqueeze(-1) - self.shifts
        bounds = bounds.clamp(-1, LAST_DAY + 1).short()
        # A binary search in all items' days at once: how many lie before the event's day, and before each window.
        # Written for a CPU: index_select takes a quarter of the time of an index, a sum with alpha a tenth of a where.
        low = self.offsets[items].unsqueeze(-1).expand_as(bounds).contiguous()
        last = self.offsets[items + 1].unsqueeze(-1) - 1
        for step in (1 << power for power in reversed(range(self.steps))):
            ahead = low + (step - 1)
            passed = (_at(self.days, ahead.clamp(max=len(self.days) - 1)) < bounds) & (ahead <= last)
            low = torch.add(low, passed, alpha=step)
        found = _at(self.before, low).long()
        return found[..., :1] - found[..., 1:]


def _at(column: Tensor, places: Tensor) -> Tensor:
    """column [n], places [...] -> [...]."""
    return column.index_select(0, places.flatten()).view(places.shape)
