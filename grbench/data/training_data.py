"""All that a method may learn from. No test row can be reached from here."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np

from grbench.data.histories import Events, Histories
from grbench.data.store import Catalogue
from grbench.errors import DataError
from grbench.types import FIRST_ACTION


def action_tokens(actions: Sequence[str], catalogue: Catalogue, where: str) -> tuple[int, ...]:
    """The tokens of named actions; raises DataError for a name that the dataset does not have."""
    for name in actions:
        if name not in catalogue.actions:
            raise DataError(f"{where}: no action {name!r} in this dataset; it has {', '.join(catalogue.actions)}")
    return tuple(catalogue.actions.index(name) + FIRST_ACTION for name in actions)


class TrainingData:
    """The training events of a split, and the catalogue.

    target_actions: tokens of the actions whose events are learnt as targets (None = every event).
    no_target_after: (action token, unix seconds); later events of that action are no targets (None = no limit).
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
        self.trainable = np.flatnonzero(histories.lengths >= 2)
        """Rows with at least one event to learn from and one to learn."""

    @property
    def users(self) -> np.ndarray:
        """[S] store rows of the users whose events are seen."""
        return self._histories.users

    @property
    def num_events(self) -> int:
        """How many events are seen."""
        return int(self._histories.lengths.sum())

    @property
    def lengths(self) -> np.ndarray:
        """[S] int64, how many events of each row are seen."""
        return self._histories.lengths

    def may_be_target(self, actions: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Whether an event with this action token at this time may be learnt as a target; bool, of their shape."""
        allowed = np.ones(actions.shape, bool)
        if self.target_actions is not None:
            allowed &= np.isin(actions, self.target_actions)
        if self.no_target_after is not None:
            action, until = self.no_target_after
            allowed &= (actions != action) | (times <= until)
        return allowed

    def with_targets(self, actions: Sequence[str], where: str) -> TrainingData:
        """The same events, of which those of the named actions are learnt as targets; what is counted is shared.

        Raises DataError, prefixed by `where`, for an action that the dataset lacks or no training event has.
        """
        other = copy.copy(self)
        other.target_actions = action_tokens(actions, self.catalogue, where)
        if not any(np.isin(events.actions, other.target_actions).any() for events in self.stream()):
            raise DataError(f"{where}: no training event is a {' or a '.join(actions)}, so there is nothing to learn")
        return other

    def stream(self, events_at_once: int = 1 << 22) -> Iterator[Events]:
        """Every training event once, some millions at a time."""
        return self._histories.stream(events_at_once)

    def newest(self, rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Items, action tokens and times [len(rows), length] of each row's newest training events, left-padded."""
        return self._histories.newest(rows, length)

    def until(self, rows: np.ndarray, stops: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same of the `length` events up to each row's event number `stops` [len(rows)] (1 = its first), it
        included."""
        return self._histories.until(rows, stops, length)

    def item_counts(self, actions: Sequence[str] | None = None) -> np.ndarray:
        """[N+1] int64: training events of each item, of the named actions only where given."""
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
