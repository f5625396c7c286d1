"""The training examples of an epoch: ranges of events of users' histories, in order.

Examples are arrays with one entry per example, so that no Python loop runs over events.
Shapes: E examples, T history length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from grbench.data.training_data import TrainingData


@dataclass(frozen=True)
class Examples:
    """Example e consists of the (at most T + 1) events of row `rows[e]` up to and including event number `stops[e]`.

    The target at a position is the next event. The oldest event is a target too, of the user's token, where it is the
    row's first and the data counts that as a target (`TrainingData.first_target`).

    rows:      [E] int64, rows of the training data
    stops:     [E] int64, 1 = the row's first event; at least the data's `first_target`
    last_only: only the newest event is a target
    """

    rows: np.ndarray
    stops: np.ndarray
    last_only: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def users_and_events(self, chosen: slice, history_length: int) -> tuple[int, int]:
        """How many of these examples have a history, and how many events these histories have."""
        events = np.minimum(self.stops[chosen] - 1, history_length)
        return int((events > 0).sum()), int(events.sum())

    def num_batches(self, batch_size: int) -> int:
        """Number of batches; the last one may be padded."""
        return -(-len(self) // batch_size)


def newest_events(data: TrainingData, *, seed: int, epoch: int) -> Examples:
    """The newest events of each trainable user, shuffled by seed and epoch."""
    rows = np.random.default_rng((seed, epoch)).permutation(data.trainable)
    return Examples(rows, data.lengths[rows])


def consecutive_windows(data: TrainingData, history_length: int, *, seed: int, epoch: int) -> Examples:
    """All histories, cut into windows of at most T + 1 events from the newest event backwards, shuffled.

    Consecutive windows share one event, the last of the older and the first of the newer window, so that every event
    but the first of a history is a target exactly once, and the first too where the data counts it as one.
    """
    trainable = data.trainable
    lengths = data.lengths[trainable]
    counts = np.maximum(-(-(lengths - 1) // history_length), 1)
    before = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rows, stops = np.repeat(trainable, counts), np.repeat(lengths, counts) - before * history_length
    order = np.random.default_rng((seed, epoch)).permutation(len(rows))
    return Examples(rows[order], stops[order])


def all_prefixes(data: TrainingData, *, seed: int, epoch: int) -> Examples:
    """One example for each event that may be a target, with the events before it as history, shuffled."""
    rows, stops = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for of_block in _targets(data):
        rows.append(of_block[0])
        stops.append(of_block[1])
    return _shuffled(np.concatenate(rows), np.concatenate(stops), seed, epoch)


def newest_targets(data: TrainingData, *, seed: int, epoch: int, least: int = 1) -> Examples:
    """One example for each user with an event that may be a target: the newest of these, with the events before it as
    history, shuffled. least: number of the first event that counts, 1 = the user's first."""
    newest = np.zeros(len(data.users), np.int64)
    for rows, stops in _targets(data):
        newest[rows] = stops  # ascending within a row: the last one stays
    rows = np.flatnonzero(newest >= least)
    return _shuffled(rows, newest[rows], seed, epoch)


def _targets(data: TrainingData) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (row, number in its row) of the events that may be targets, ascending, block by block."""
    done = 0
    for events in data.stream():
        counts = np.diff(events.offsets)
        row = np.repeat(np.arange(len(counts)), counts)
        stop = np.arange(len(row)) - events.offsets[row] + 1
        is_target = (stop >= data.first_target) & data.may_be_target(events.actions, events.times)
        yield done + row[is_target], stop[is_target]
        done += len(counts)


def _shuffled(rows: np.ndarray, stops: np.ndarray, seed: int, epoch: int) -> Examples:
    """Examples of which the newest event is the only target."""
    order = np.random.default_rng((seed, epoch)).permutation(len(rows))
    return Examples(rows[order], stops[order], last_only=True)
