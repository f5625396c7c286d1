"""Building blocks of evaluation protocols: candidate pools, users' last events, and queries for chosen events.

Shapes: U users, N items, P candidates, Q queries.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from grbench.data.histories import Histories
from grbench.data.split import Queries
from grbench.data.store import Store
from grbench.errors import DataError
from grbench.interfaces import Dataset, optional
from grbench.types import FIRST_ACTION

Pool = Literal["candidates", "catalogue"]
"""The candidates that are ranked: the dataset's own candidate table, or all items of the catalogue."""


def require_candidates(dataset: object, pool: Pool) -> None:
    """Raises DataError where the pool is `candidates` and the source, whose store is not built yet, has none."""
    missing = optional(dataset, Dataset.no_candidates)() if pool == "candidates" else None
    if missing:
        raise DataError(
            f"{missing}, and the candidates that it holds are to be ranked; download it, or rank all items with --set "
            "protocol.pool=catalogue"
        )


def candidate_pool(store: Store, pool: Pool) -> np.ndarray:
    """[P] int64, ascending. Raises DataError where the pool is `candidates` and the dataset has none."""
    if pool == "catalogue":
        return np.arange(1, store.catalogue.num_items + 1)
    if store.candidates is None:
        raise DataError(
            "this dataset has no candidate pool (none was found when its store was built); download it, or rank all "
            "items with --set protocol.pool=catalogue"
        )
    return np.asarray(store.candidates)


def pool_mask(store: Store, pool: np.ndarray) -> np.ndarray:
    """pool [P] -> [N+1] bool, whether an item is in the pool."""
    mask = np.zeros(store.catalogue.num_items + 1, bool)
    mask[pool] = True
    return mask


def queries_at(store: Store, users: np.ndarray, at: np.ndarray, next_action: int) -> Queries:
    """One query for each of the users [Q]. Its target is the event at position `at` [Q] of the store's event columns,
    its history all earlier events of the user. next_action: the action token that states are conditioned on."""
    return Queries(
        histories=Histories(store, users, np.asarray(store.offsets[users]), at),
        targets=np.asarray(store.items[at], np.int64)[:, None],
        target_actions=np.asarray(store.actions[at], np.int64)[:, None],
        next_action=next_action,
        target_times=np.asarray(store.times[at], np.int64)[:, None] if store.catalogue.has_times else None,
    )


def last_events(store: Store, users: np.ndarray, tokens: tuple[int, ...]) -> np.ndarray:
    """users [U] -> [U] int64, the position in the store's event columns of each user's last event with one of these
    action tokens; -1 = none."""
    assert min(tokens, default=FIRST_ACTION) >= FIRST_ACTION
    found = np.full(len(users), -1, np.int64)
    histories = Histories(store, users, np.asarray(store.offsets[users]), np.asarray(store.offsets[users + 1]))
    done = 0
    for events in histories.stream():
        counts = np.diff(events.offsets)
        positions = np.where(np.isin(events.actions, tokens), np.arange(events.offsets[-1]), -1)
        filled = np.flatnonzero(counts)
        last = np.full(len(counts), -1, np.int64)
        if len(filled):
            last[filled] = np.maximum.reduceat(positions, events.offsets[filled])
        here = slice(done, done + len(counts))
        found[here] = np.where(last >= 0, store.offsets[users[here]] + last - events.offsets[:-1], -1)
        done += len(counts)
    return found
