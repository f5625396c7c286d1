"""Stores that differ in nothing that a method may know: in the targets, or in all that follows a cutoff.

The cutoff of an evaluated user is where the history of its query ends. What comes from there on is the user's future.
Shapes: E events, U users, Q queries, G targets per query, P candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from grbench.data.split import Queries, Split
from grbench.data.store import Store
from grbench.interfaces import EvaluationProtocol, optional
from grbench.types import FIRST_ACTION

TARGET_SEED, FUTURE_SEED = 4_711, 4_712
"""Not those of anything else, with whose draws these must have nothing to do."""
MOST_LATER = 20 * 86_400
"""Seconds by which a user's future is put off at most."""


class UnstableSplitError(Exception):
    """The protocol evaluates other users, or ends their histories elsewhere, when nothing but items in the future
    changes, so that the two splits cannot be compared."""


@dataclass(frozen=True)
class ChangedStore:
    """A store with a changed future, and its split.

    drawn: whether targets were drawn uniformly from the pool; else the targets of all queries were exchanged among each
    other, so that a pool to which they are added stays the same. changed: what was changed, for messages.
    """

    store: Store
    split: Split
    drawn: bool
    changed: str


@dataclass(frozen=True)
class _Futures:
    """Which events of a store are hidden. test_targets, targets: [E] bool, targets of test queries, of any queries;
    future: [E] bool, at or after the first cutoff of their user."""

    test_targets: np.ndarray
    targets: np.ndarray
    future: np.ndarray


def overlaps(split: Split) -> bool:
    """Whether a test query's history may hold a validation target: whether a user is validated and tested."""
    return split.validation is not None and bool(np.isin(split.validation.users, split.test.users).any())


def with_drawn_targets(store: Store, split: Split, protocol: EvaluationProtocol) -> ChangedStore:
    """The store with other targets of the test queries, and of the validation queries where no test query's history
    holds them. Raises UnstableSplitError."""
    futures = _futures(store, split)
    places = futures.test_targets if overlaps(split) else futures.targets
    items, drawn = _other_targets(store, split, protocol, places)
    store = replace(store, items=items)
    other = protocol.split(store)
    if not _same_queries(split, other):
        raise UnstableSplitError(
            "other users are evaluated, or their histories end elsewhere, when only targets differ"
        )
    return ChangedStore(store, other, drawn, f"the items of {places.sum():,} targets")


def with_changed_futures(store: Store, split: Split, protocol: EvaluationProtocol) -> ChangedStore:
    """The store with other items, actions and times in the future of all evaluated users: as many of these three as
    leave the protocol's cutoffs where they are. Raises UnstableSplitError where even other items move them."""
    futures = _futures(store, split)
    random = np.random.default_rng(FUTURE_SEED)
    items, drawn = _other_targets(store, split, protocol, futures.targets)
    others = np.flatnonzero(futures.future & ~futures.targets)
    items[others] = 1 + random.integers(store.catalogue.num_items, size=len(others))
    actions, times = np.array(store.actions), np.array(store.times)
    actions[others] = FIRST_ACTION + random.integers(max(len(store.catalogue.actions), 1), size=len(others))
    later = random.integers(1, MOST_LATER, size=len(store.offsets) - 1)  # one of each user, so that the order stays
    if store.catalogue.has_times:
        times += np.where(futures.future, np.repeat(later, np.diff(store.offsets)), 0)
    attempts: Sequence[tuple[str, Store]] = (
        ("items, actions and times", replace(store, items=items, actions=actions, times=times)),
        ("items and times", replace(store, items=items, times=times)),
        ("items", replace(store, items=items)),
    )
    for what, changed in attempts:
        other = protocol.split(changed)
        # Only where items alone differ, training data of another shape is the protocol's fault: a split by time may
        # follow the times.
        if _same_queries(split, other) and (what == "items" or _same_training_users(split, other)):
            return ChangedStore(changed, other, drawn, f"the {what} of {futures.future.sum():,} events")
    raise UnstableSplitError(
        "other users are evaluated, or their histories end elsewhere, when only items of the future differ"
    )


def drawn_from(pool: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Items drawn uniformly from the pool [P], the same each time."""
    drawn: np.ndarray = np.random.default_rng(TARGET_SEED).choice(np.asarray(pool), shape)
    return drawn


def _other_targets(
    store: Store, split: Split, protocol: EvaluationProtocol, places: np.ndarray
) -> tuple[np.ndarray, bool]:
    """places: [E] bool, targets -> [E] items with others there; whether these were drawn from the pool."""
    items = np.array(store.items)
    if not optional(protocol, EvaluationProtocol.adds_targets_to_pool)():
        items[places] = drawn_from(split.candidates, (int(places.sum()),))
        return items, True
    # Each item of the targets becomes the next one, by how often it is a target: all stay targets, with other counts.
    distinct, counts = np.unique(items[places], return_counts=True)
    order = np.argsort(counts, kind="stable")
    successor = np.zeros(store.catalogue.num_items + 1, items.dtype)
    successor[distinct[order]] = np.roll(distinct[order], 1)
    items[places] = successor[items[places]]
    return items, False


def _futures(store: Store, split: Split) -> _Futures:
    offsets = np.asarray(store.offsets)
    user_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    every = [split.test] if split.validation is None else [split.test, split.validation]
    targets = [_targets(store, queries, user_of) for queries in every]
    return _Futures(
        test_targets=targets[0],
        targets=np.logical_or.reduce(targets),
        future=_is_future(offsets, every, user_of),
    )


def _cutoffs(offsets: np.ndarray, several: Iterable[Queries]) -> np.ndarray:
    """[U] the event that each user's first future event is, the number of all events for users without a query."""
    cutoffs = np.full(len(offsets) - 1, offsets[-1])
    for queries in several:
        np.minimum.at(cutoffs, queries.users, queries.histories._stops)
    return cutoffs


def _is_future(offsets: np.ndarray, several: Iterable[Queries], user_of: np.ndarray) -> np.ndarray:
    """user_of: [E] -> [E] bool, whether the event is at or after the first cutoff of its user."""
    future: np.ndarray = np.arange(len(user_of)) >= _cutoffs(offsets, several)[user_of]
    return future


def _targets(store: Store, queries: Queries, user_of: np.ndarray) -> np.ndarray:
    """user_of: [E] -> [E] bool, the first event at or after the cutoff with each target of each query."""
    size = store.catalogue.num_items + 1
    wanted = (queries.users[:, None] * size + queries.targets)[queries.targets > 0]
    keys = user_of * size + store.items
    places = np.flatnonzero(_is_future(np.asarray(store.offsets), [queries], user_of) & np.isin(keys, wanted))
    _, first = np.unique(keys[places], return_index=True)
    found = np.zeros(len(keys), bool)
    found[places[first]] = True
    return found


def _same_queries(one: Split, other: Split) -> bool:
    pairs = [(one.test, other.test), (one.validation, other.validation)]
    return all(_same(mine, theirs) for mine, theirs in pairs)


def _same(one: Queries | None, other: Queries | None) -> bool:
    if one is None or other is None:
        return one is other
    facts = [(queries.users, queries.histories._stops, queries.histories.lengths) for queries in (one, other)]
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(*facts, strict=True))


def _same_training_users(one: Split, other: Split) -> bool:
    facts = [(split.training.users, split.training.lengths) for split in (one, other)]
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(*facts, strict=True))
