"""What protocols are built from: pools of candidates, users' last events, and queries at a position of the store."""

from __future__ import annotations

from typing import Literal

import numpy as np

from grbench.data.histories import Histories
from grbench.data.split import Queries
from grbench.data.store import Store
from grbench.errors import DataError
from grbench.types import FIRST_ACTION

Pool = Literal["candidates", "catalogue"]
"""Rank the dataset's official candidates, or every item of the catalogue."""


def candidate_pool(store: Store, pool: Pool) -> np.ndarray:
    """[P] int64, ascending; raises DataError where the dataset has no candidates."""
    if pool == "catalogue":
        return np.arange(1, store.catalogue.num_items + 1)
    if store.candidates is None:
        raise DataError(
            "this dataset has no candidate pool (no candidate/ folder was found when its store was made); "
            "fetch it, or rank all items with --set protocol.pool=catalogue"
        )
    return np.asarray(store.candidates)


def pool_mask(store: Store, pool: np.ndarray) -> np.ndarray:
    """[N+1] bool: which items are in the pool [P]."""
    mask = np.zeros(store.catalogue.num_items + 1, bool)
    mask[pool] = True
    return mask


def queries_at(store: Store, users: np.ndarray, at: np.ndarray, next_action: int) -> Queries:
    """One query a user [Q]: the target is the event at position `at` [Q] of the event columns, the history all events
    of the user before it. next_action: the action token that states are conditioned on."""
    return Queries(
        histories=Histories(store, users, np.asarray(store.offsets[users]), at),
        targets=np.asarray(store.items[at], np.int64)[:, None],
        target_actions=np.asarray(store.actions[at], np.int64)[:, None],
        next_action=next_action,
    )


def last_events(store: Store, users: np.ndarray, tokens: tuple[int, ...]) -> np.ndarray:
    """[len(users)] int64: position in the event columns of each user's last event with such an action, -1 = none."""
    assert min(tokens, default=FIRST_ACTION) >= FIRST_ACTION
    found = np.full(len(users), -1, np.int64)
    every = Histories(store, users, np.asarray(store.offsets[users]), np.asarray(store.offsets[users + 1]))
    done = 0
    for events in every.stream():
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
