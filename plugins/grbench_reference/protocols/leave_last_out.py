"""Leave-one-out, the usual protocol of sequential recommendation: the target is each user's last event."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from grbench.data.histories import Histories
from grbench.data.queries import Pool, candidate_pool, pool_mask, queries_at, require_candidates
from grbench.data.split import Split
from grbench.data.store import Store
from grbench.data.training_data import TrainingData, action_tokens
from grbench.errors import DataError
from grbench.interfaces import Dataset, EvaluationProtocol


class LeaveLastOut(EvaluationProtocol):
    """Holds out each user's last event for the test and the one before it for validation.

    Args:
        min_events: users with fewer events are not evaluated; all their events are trained on
        pool: catalogue = all items are ranked; candidates = the dataset's official candidates
        next_action: the action that models are conditioned on at test; the dataset's first where not given
    """

    def __init__(
        self,
        *,
        min_events: Annotated[int, Field(ge=3)] = 3,
        pool: Pool = "catalogue",
        next_action: str | None = None,
    ) -> None:
        self.min_events, self.pool, self.next_action = min_events, pool, next_action

    def check(self, dataset: Dataset) -> None:
        """Raises DataError where the pool is the dataset's candidates and it has none."""
        require_candidates(dataset, self.pool)

    def split(self, store: Store) -> Split:
        """Raises DataError where the pool is missing or no user is left."""
        names = store.catalogue.actions
        next_action = action_tokens([self.next_action or names[0]], store.catalogue, "protocol.next_action")[0]
        starts, ends = np.asarray(store.offsets[:-1]), np.asarray(store.offsets[1:])
        users = np.arange(len(starts))
        evaluated = ends - starts >= self.min_events
        pool = candidate_pool(store, self.pool)
        inside = pool_mask(store, pool)
        has_target = evaluated.copy()
        has_target[evaluated] = inside[store.items[ends[evaluated] - 1]]
        counts = {
            "evaluation_users": len(users),
            "dropped_too_few_events": int((~evaluated).sum()),
            "dropped_out_of_pool": int((evaluated & ~has_target).sum()),
            "evaluated": int(has_target.sum()),
        }
        if not counts["evaluated"]:
            raise DataError(
                f"the protocol leaves no user to evaluate: of {len(users)} users {counts['dropped_too_few_events']} "
                f"have fewer than {self.min_events} events and "
                f"{counts['dropped_out_of_pool']} a target outside the pool"
            )
        is_validated = has_target.copy()
        is_validated[has_target] = inside[store.items[ends[has_target] - 2]]
        validation = queries_at(store, users[is_validated], ends[is_validated] - 2, next_action)
        return Split(
            training=TrainingData(
                store.catalogue, Histories(store, users, starts, np.where(evaluated, ends - 2, ends))
            ),
            validation=validation if len(validation) else None,
            test=queries_at(store, users[has_target], ends[has_target] - 1, next_action),
            candidates=pool,
            counts=counts,
        )
