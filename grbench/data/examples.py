"""What an epoch trains on: which stretches of which histories, in which order.

Everything is arrays with one entry an example, so that nothing loops over events. Shapes: E examples, T history length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grbench.data.training_data import TrainingData


@dataclass(frozen=True)
class Examples:
    """Example e reads events of row `rows[e]` of the training data, the newest of them its event number `stops[e]`.

    Of these it reads at most T + 1, older ones are cut off. The target at a position is the event after it.

    rows:      [E] int64
    stops:     [E] int64, 1 = the row's first event; at least 2, one event to learn from and one to learn
    last_only: only the newest event is a target; otherwise every event but the oldest that is read is one
    """

    rows: np.ndarray
    stops: np.ndarray
    last_only: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def num_batches(self, batch_size: int) -> int:
        """How many batches they make; the last one may be filled up."""
        return -(-len(self) // batch_size)


def newest_events(data: TrainingData, *, seed: int, epoch: int) -> Examples:
    """Every trainable user once, its newest events, in an order that seed and epoch alone decide."""
    rows = np.random.default_rng((seed, epoch)).permutation(data.trainable)
    return Examples(rows, data.lengths[rows])


def consecutive_windows(data: TrainingData, history_length: int, *, seed: int, epoch: int) -> Examples:
    """Every history cut into windows of at most T + 1 events, from its newest event backwards, all of them shuffled.

    Two windows share one event, the last of the one and the first of the other, so that each event but a history's
    first is a target exactly once.
    """
    lengths = data.lengths[data.trainable]
    counts = -(-(lengths - 1) // history_length)
    before = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rows, stops = np.repeat(data.trainable, counts), np.repeat(lengths, counts) - before * history_length
    order = np.random.default_rng((seed, epoch)).permutation(len(rows))
    return Examples(rows[order], stops[order])


def all_prefixes(data: TrainingData, *, seed: int, epoch: int) -> Examples:
    """One example for each event that may be a target, with the events before it as its history, shuffled."""
    rows, stops, done = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for events in data.stream():
        counts = np.diff(events.offsets)
        row = np.repeat(np.arange(len(counts)), counts)
        stop = np.arange(len(row)) - events.offsets[row] + 1
        learnt = (stop >= 2) & data.may_be_target(events.actions, events.times)
        rows.append(done + row[learnt])
        stops.append(stop[learnt])
        done += len(counts)
    order = np.random.default_rng((seed, epoch)).permutation(sum(map(len, rows)))
    return Examples(np.concatenate(rows)[order], np.concatenate(stops)[order], last_only=True)
