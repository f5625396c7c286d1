"""A protocol of a stranger: what happened before a moment is learnt from, and what came first after it is predicted."""

from __future__ import annotations

import numpy as np

from grbench import hookimpl
from grbench.data.histories import Histories
from grbench.data.queries import Pool, candidate_pool, queries_at
from grbench.data.split import Split
from grbench.data.store import Store
from grbench.data.training_data import TrainingData
from grbench.errors import DataError
from grbench.interfaces import EvaluationProtocol
from grbench.types import FIRST_ACTION


class TimeSplit(EvaluationProtocol):
    """Users with events before and after the moment are evaluated on their first event after it.

    Args:
        moment: unix seconds
        pool: rank every item of the catalogue, or the dataset's candidates
    """

    def __init__(self, *, moment: int, pool: Pool = "catalogue") -> None:
        self.moment, self.pool = moment, pool

    def split(self, store: Store) -> Split:
        starts, ends = np.asarray(store.offsets[:-1]), np.asarray(store.offsets[1:])
        early = np.concatenate([[0], np.cumsum(np.asarray(store.times) < self.moment)])
        at = starts + early[ends] - early[starts]
        evaluated = np.flatnonzero((at > starts) & (at < ends))
        if not len(evaluated):
            raise DataError(f"protocol.moment: no user has events before and after {self.moment}")
        return Split(
            training=TrainingData(store.catalogue, Histories(store, np.arange(len(starts)), starts, at)),
            validation=None,
            test=queries_at(store, evaluated, at[evaluated], FIRST_ACTION),
            candidates=candidate_pool(store, self.pool),
            counts={"evaluation_users": len(starts), "evaluated": len(evaluated)},
        )


@hookimpl
def register_protocols(register):
    register("time_split", TimeSplit)
