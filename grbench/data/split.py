"""The result of an evaluation protocol: training data, validation and test queries, and candidates.

Shapes: Q queries, G targets per query, P candidates.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from grbench.data.histories import Histories
from grbench.data.training_data import TrainingData

SAMPLE_SEED = 0
"""Of samples of queries. The cell's seed would give every row of a table other validation users."""


@dataclass(frozen=True)
class Queries:
    """Histories and, in separate arrays, their targets.

    histories: one row per query, which ends before the target; targets, target_actions: [Q, G] int64, 0-padded;
    next_action: the action token that the last state of each history is conditioned on; target_times: [Q, G] int64,
    unix seconds, 0-padded, None where they are not known, so that no slice can use them.
    """

    histories: Histories
    targets: np.ndarray
    target_actions: np.ndarray
    next_action: int
    target_times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def sample(self, size: int | None) -> Queries:
        """A random sample of so many queries, in order, that is the same in every process and part of every larger one;
        all queries where there are no more, or size is None."""
        if size is None or size >= len(self):
            return self
        rows = np.sort(np.random.default_rng(SAMPLE_SEED).permutation(len(self))[:size])
        return replace(
            self,
            histories=self.histories.select(rows),
            targets=self.targets[rows],
            target_actions=self.target_actions[rows],
            target_times=None if self.target_times is None else self.target_times[rows],
        )

    @property
    def users(self) -> np.ndarray:
        """[Q] store rows."""
        return self.histories.users


@dataclass(frozen=True)
class Split:
    """candidates: [P] int64, ascending. counts: number of users that are evaluated, and dropped for each reason.
    remarks: sentences about the split, for the record and the table's footer."""

    training: TrainingData
    validation: Queries | None
    test: Queries
    candidates: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def pool_digest(self) -> str:
        """16 hex digits of the candidates' hash; results are compared only where they agree in it."""
        return hashlib.sha256(np.ascontiguousarray(self.candidates, np.int64).data).hexdigest()[:16]
