"""Batches straight from the mapped store, in the same order whatever the workers.

Shapes: B users, T history length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from grbench.data.examples import Examples
from grbench.data.split import Queries
from grbench.data.training_data import TrainingData
from grbench.types import Batch

Piece = TypeVar("Piece")
Loaded = TypeVar("Loaded")


def training_batches(
    data: TrainingData,
    examples: Examples,
    *,
    history_length: int,
    batch_size: int,
    first: int = 0,
    workers: int = 1,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """One epoch: every example once, in order, the target at a position being the event after it.

    Shapes are static: the last batch is filled up with rows that hold no event and no target.
    first: how many batches to leave out, for a training that goes on in the middle of an epoch.
    workers: threads that read ahead (numpy releases the interpreter lock while it gathers); 0 reads when asked.
    """
    pieces = [slice(start, start + batch_size) for start in range(first * batch_size, len(examples), batch_size)]

    def read(piece: slice) -> Batch:
        batch = _training_batch(data, examples, piece, history_length, batch_size)
        return batch.pin_memory() if pin_memory else batch

    return _read_ahead(read, pieces, workers)


def query_batches(
    queries: Queries, *, history_length: int, batch_size: int, workers: int = 1
) -> Iterator[tuple[slice, Batch]]:
    """Every query once, in order, each batch with the rows it holds. Built from histories alone: no target is read."""
    pieces = [slice(first, min(first + batch_size, len(queries))) for first in range(0, len(queries), batch_size)]
    histories, next_action = queries.histories, queries.next_action

    def read(where: slice) -> tuple[slice, Batch]:
        rows = np.arange(where.start, where.stop)
        items, actions, times = histories.newest(rows, history_length)
        following = np.concatenate([actions[:, 1:], np.full((len(rows), 1), next_action)], axis=1)
        return where, _to_batch(histories.users[rows], items, actions, times, np.zeros_like(items), following)

    return _read_ahead(read, pieces, workers)


def _training_batch(data: TrainingData, examples: Examples, piece: slice, length: int, batch_size: int) -> Batch:
    rows = examples.rows[piece]
    items, actions, times = data.until(rows, examples.stops[piece], length + 1)
    targets, next_actions = items[:, 1:], actions[:, 1:]
    learnt = (items[:, :-1] > 0) & data.may_be_target(next_actions, times[:, 1:])
    if examples.last_only:
        learnt[:, :-1] = False
    history = items[:, :-1]
    columns = [
        history,
        actions[:, :-1],
        times[:, :-1],
        np.where(learnt, targets, 0),
        np.where(history > 0, next_actions, 0),
    ]
    missing = batch_size - len(rows)
    if missing:
        columns = [np.pad(column, ((0, missing), (0, 0))) for column in columns]
    return _to_batch(np.pad(data.users[rows], (0, missing)), *columns)


def _to_batch(users: np.ndarray, *columns: np.ndarray) -> Batch:
    tensors = [torch.from_numpy(np.ascontiguousarray(column, np.int64)) for column in (users, *columns)]
    return Batch(*tensors)


def _read_ahead(read: Callable[[Piece], Loaded], pieces: Sequence[Piece], workers: int) -> Iterator[Loaded]:
    """read(piece) for every piece, in order, `workers` threads working ahead of whoever consumes."""
    if workers == 0:
        yield from map(read, pieces)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="loader") as pool:
        waiting: deque[Future[Loaded]] = deque()
        try:
            for piece in pieces:
                waiting.append(pool.submit(read, piece))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
