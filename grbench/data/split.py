"""What a protocol makes of a store: what to learn from, what to ask, and what the answers are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from grbench.data.histories import Histories
from grbench.data.training_data import TrainingData


@dataclass(frozen=True)
class Queries:
    """Questions and, apart from them, their answers.

    histories: one row a query, ends before the target; targets, target_actions: [Q, G] int64, 0-padded;
    next_action: the action token that the suite asks for.
    """

    histories: Histories
    targets: np.ndarray
    target_actions: np.ndarray
    next_action: int

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def users(self) -> np.ndarray:
        """[Q] store rows."""
        return self.histories.users


@dataclass(frozen=True)
class Split:
    """candidates: [P] int64, ascending. counts: how many users were evaluated, and how many dropped, by reason."""

    training: TrainingData
    validation: Queries | None
    test: Queries
    candidates: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def pool_digest(self) -> str:
        """Names the candidate pool: two results with different pools cannot be compared."""
        return hashlib.sha256(np.ascontiguousarray(self.candidates, np.int64).data).hexdigest()[:16]
