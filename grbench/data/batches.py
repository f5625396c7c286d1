"""Batches of histories, read from the memory-mapped store; their order does not depend on the number of workers.

Shapes: B users, T history length, R rows.
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

BatchKey = TypeVar("BatchKey")
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
    part: slice | None = None,
) -> Iterator[Batch]:
    """Yields the batches of one epoch: every example once, in order. The target at a position is the next event, that
    of the user's token the row's first event, where the data counts it as a target and the example reaches it.

    Shapes are static: the last batch is padded with rows without events and targets.
    part: which rows of each batch are read, where several devices share it; None = all.
    first: index of the first batch, to continue training within an epoch.
    workers: threads that prefetch batches (numpy releases the interpreter lock while it gathers); 0 = no prefetching.
    """
    own = slice(0, batch_size) if part is None else part
    starts = range(first * batch_size, len(examples), batch_size)
    slices = [slice(start + own.start, start + own.stop) for start in starts]

    def read(chosen: slice) -> Batch:
        batch = _training_batch(data, examples, chosen, history_length, own.stop - own.start)
        return batch.pin_memory() if pin_memory else batch

    return _prefetch(read, slices, workers)


def query_batches(
    queries: Queries,
    *,
    history_length: int,
    batch_size: int,
    workers: int = 1,
    only: Sequence[int] | None = None,
) -> Iterator[tuple[slice, Batch]]:
    """Yields (slice of the queries, their batch) for all queries in order. Reads histories only, never a target.

    only: the numbers of the batches that are read, 0 = the first; None = all."""
    slices = [slice(first, min(first + batch_size, len(queries))) for first in range(0, len(queries), batch_size)]
    if only is not None:
        slices = [slices[number] for number in only]
    histories, next_action = queries.histories, queries.next_action

    def read(chosen: slice) -> tuple[slice, Batch]:
        rows = np.arange(chosen.start, chosen.stop)
        items, actions, times = histories.newest(rows, history_length)
        next_actions = np.concatenate([actions[:, 1:], np.full((len(rows), 1), next_action)], axis=1)
        lengths, nothing = histories.lengths[rows], np.zeros_like(items)
        first_action, first_time = _first_events(lengths, actions, times)
        first_action[lengths == 0] = next_action
        of_events = items, actions, times, nothing, next_actions
        return chosen, _to_batch(histories.users[rows], *of_events, nothing[:, 0], first_action, first_time)

    return _prefetch(read, slices, workers)


def _training_batch(data: TrainingData, examples: Examples, chosen: slice, length: int, batch_size: int) -> Batch:
    rows, stops = examples.rows[chosen], examples.stops[chosen]
    items, actions, times = data.up_to(rows, stops, length + 1)
    targets, next_actions = items[:, 1:], actions[:, 1:]
    has_target = (items[:, :-1] > 0) & data.may_be_target(next_actions, times[:, 1:])
    if examples.last_only:
        has_target[:, :-1] = False
    history = items[:, :-1]
    reached = stops if data.first_target == 1 else np.zeros_like(stops)
    first_item, first_action, first_time = _first_events(reached, items, actions, times)
    first_is_target = data.may_be_target(first_action, first_time) & ((stops == 1) | (not examples.last_only))
    columns = [
        data.users[rows],
        history,
        actions[:, :-1],
        times[:, :-1],
        np.where(has_target, targets, 0),
        np.where(history > 0, next_actions, 0),
        np.where(first_is_target, first_item, 0),
        first_action,
        first_time,
    ]
    missing = batch_size - len(rows)
    if missing:
        columns = [np.pad(column, ((0, missing), (0, 0))[: column.ndim]) for column in columns]
    return _to_batch(*columns)


def _first_events(lengths: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """The columns [B, L] of rows that end at event number lengths [B] -> [B] of each row's first event, 0 where the
    columns do not reach it or there is none."""
    width = columns[0].shape[1]
    reached = (lengths > 0) & (lengths <= width)
    place = np.arange(len(lengths)), np.where(reached, width - lengths, 0)
    return [np.where(reached, column[place], 0) for column in columns]


def _to_batch(*columns: np.ndarray) -> Batch:
    return Batch(*(torch.from_numpy(np.ascontiguousarray(column, np.int64)) for column in columns))


def _prefetch(read: Callable[[BatchKey], Loaded], keys: Sequence[BatchKey], workers: int) -> Iterator[Loaded]:
    """Yields read(key) for each key, in order; `workers` threads compute up to two results each in advance."""
    if workers == 0:
        yield from map(read, keys)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="loader") as pool:
        waiting: deque[Future[Loaded]] = deque()
        try:
            for key in keys:
                waiting.append(pool.submit(read, key))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
