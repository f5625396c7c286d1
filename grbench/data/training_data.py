"""The data that a method may learn from. It gives no access to test or validation targets.

Shapes: S users of the training data, N items, n some rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np

from grbench.data.histories import Events, Histories
from grbench.data.store import Catalogue
from grbench.errors import DataError
from grbench.types import FIRST_ACTION


def action_tokens(actions: Sequence[str], catalogue: Catalogue, where: str) -> tuple[int, ...]:
    """The tokens of action names. Raises DataError, prefixed by `where`, for an action that the dataset lacks."""
    for name in actions:
        if name not in catalogue.actions:
            raise DataError(f"{where}: no action {name!r} in this dataset; it has {', '.join(catalogue.actions)}")
    return tuple(catalogue.actions.index(name) + FIRST_ACTION for name in actions)


class TrainingData:
    """The training events of a split, and the catalogue.

    target_actions: tokens of the actions whose events may be targets (None = all actions).
    no_target_after: (action token, unix seconds); later events of that action may not be targets (None = no limit).
    """

    def __init__(
        self,
        catalogue: Catalogue,
        histories: Histories,
        *,
        target_actions: tuple[int, ...] | None = None,
        no_target_after: tuple[int, int] | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.target_actions = target_actions
        self.no_target_after = no_target_after
        self._histories = histories
        self._counts: dict[tuple[str, ...] | None, np.ndarray] = {}
        self.first_target = 2
        """The first event of a user that may be a target: 2, since the target needs a history, or 1, where the encoder
        predicts the first event from the user's token."""

    @property
    def users(self) -> np.ndarray:
        """[S] int64, rows of the store."""
        return self._histories.users

    @property
    def num_events(self) -> int:
        """Number of training events."""
        return int(self._histories.lengths.sum())

    @property
    def lengths(self) -> np.ndarray:
        """[S] int64, number of training events of each row."""
        return self._histories.lengths

    @property
    def trainable(self) -> np.ndarray:
        """Rows that have an event which may be a target by its place: at least two events, or one where the first is a
        target too."""
        return np.flatnonzero(self._histories.lengths >= self.first_target)

    def may_be_target(self, actions: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Whether events with these action tokens and times may be targets; bool, of the arguments' shape."""
        allowed = np.ones(actions.shape, bool)
        if self.target_actions is not None:
            allowed &= np.isin(actions, self.target_actions)
        if self.no_target_after is not None:
            action, until = self.no_target_after
            allowed &= (actions != action) | (times <= until)
        return allowed

    def with_targets(self, actions: Sequence[str], where: str) -> TrainingData:
        """The same training events, where only those with one of the named actions may be targets.

        Item counts that were computed before are reused. Raises DataError, prefixed by `where`, for an action that the
        dataset lacks, and where no training event has one of them.
        """
        other = copy.copy(self)
        other.target_actions = action_tokens(actions, self.catalogue, where)
        if not any(np.isin(events.actions, other.target_actions).any() for events in self.stream()):
            raise DataError(f"{where}: no training event is a {' or a '.join(actions)}, so there is nothing to learn")
        return other

    def with_first_events(self) -> TrainingData:
        """The same training events, where each user's first is a target too."""
        other = copy.copy(self)
        other.first_target = 1
        return other

    def stream(self, events_at_once: int = 1 << 22) -> Iterator[Events]:
        """Yields all training events, in row order, in blocks of whole rows with about `events_at_once` events."""
        return self._histories.stream(events_at_once)

    def newest(self, rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """rows [n] -> items, action tokens and times, each [n, length] int64, of each row's newest training events,
        left-padded with 0."""
        return self._histories.newest(rows, length)

    def up_to(self, rows: np.ndarray, stops: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Like `newest`, but of the `length` events up to and including each row's event number stops [n] (1 = its
        first event)."""
        return self._histories.up_to(rows, stops, length)

    def item_counts(self, actions: Sequence[str] | None = None) -> np.ndarray:
        """[N+1] int64, number of training events of each item; with `actions`, of events with one of them only."""
        key = None if actions is None else tuple(actions)
        if key not in self._counts:
            tokens = None if key is None else action_tokens(key, self.catalogue, "item counts")
            counts = np.zeros(self.catalogue.num_items + 1, np.int64)
            for events in self.stream():
                items = events.items if tokens is None else events.items[np.isin(events.actions, tokens)]
                counts += np.bincount(items, minlength=len(counts))
            counts.flags.writeable = False
            self._counts[key] = counts
        return self._counts[key]
