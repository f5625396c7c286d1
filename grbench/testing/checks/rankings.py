"""Rankings of known quality, with which metrics and slices are checked.

Shapes: Q queries, K list length, G targets per query.
"""

from __future__ import annotations

import numpy as np

from grbench.testing.checks.check_world import CheckWorld
from grbench.types import Ranking

QUERIES, LENGTH = 12, 10


def ranking_of(world: CheckWorld, place: int | np.ndarray, *, length: int = LENGTH) -> Ranking:
    """Lists of Q test queries; place: [Q] where each target is in its list, 1 = first, 0 = not in it. Apart from the
    target, a query's list has the same items in the same order wherever its target is."""
    queries = world.split.test
    rows = np.arange(min(QUERIES, len(queries)))
    targets = queries.targets[rows]
    pool = np.asarray(world.split.candidates)
    others = np.stack([np.random.default_rng(row).permutation(pool[pool != targets[row, 0]])[:length] for row in rows])
    places = np.broadcast_to(place, len(rows))
    items = np.stack(
        [
            others[row] if not at else np.insert(others[row][:-1], at - 1, targets[row, 0])
            for row, at in zip(rows, places, strict=True)
        ]
    )
    return Ranking(
        users=queries.users[rows],
        items=items.astype(np.int64),
        scores=np.broadcast_to(-np.arange(length, dtype=np.float32), items.shape),
        targets=targets,
        target_actions=queries.target_actions[rows],
        ranks=places[:, None].astype(np.int64),
        actions=world.store.catalogue.actions,
        pool=len(pool),
        history_lengths=queries.histories.lengths[rows],
        training=world.training_data(),
        histories=queries.histories.select(rows),
        target_times=None if queries.target_times is None else queries.target_times[rows],
    )


def mixed(world: CheckWorld) -> Ranking:
    """Targets at all places, and in no list."""
    return ranking_of(world, np.arange(QUERIES) % (LENGTH + 2) % (LENGTH + 1))
