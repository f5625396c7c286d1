"""The training examples of an epoch: ranges of events of users' histories, in order.

Examples are arrays with one entry per example, so that no Python loop runs over events.
Shapes: E examples, T history length.
"""

from __future__ import annotations

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
    rows, stops, done = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for events in data.stream():
        counts = np.diff(events.offsets)
        row = np.repeat(np.arange(len(counts)), counts)
        stop = np.arange(len(row)) - events.offsets[row] + 1
        is_target = (stop >= data.first_target) & data.may_be_target(events.actions, events.times)
        rows.append(done + row[is_target])
        stops.append(stop[is_target])
        done += len(counts)
    order = np.random.default_rng((seed, epoch)).permutation(sum(map(len, rows)))
    return Examples(np.concatenate(rows)[order], np.concatenate(stops)[order], last_only=True)
