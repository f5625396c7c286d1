"""Lists as a file gives them, before they are checked against a split.

Shapes: L lists, E entries of all lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class GivenLists:
    """List l has the entries offsets[l]:offsets[l+1], best first.

    users: [L] int32, rows of the store; items: [E] int32, rows of the store; scores: [E] float64, None where only the
    order is given; tied_beyond: [L] bool, whether a tie of the last score goes on beyond the list.
    """

    users: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    scores: np.ndarray | None
    tied_beyond: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """[L] int64, number of items of each list."""
        return np.diff(self.offsets)


@dataclass
class ListCollector:
    """Puts lists together from blocks that have whole lists each."""

    users: list[np.ndarray] = field(default_factory=list)
    lengths: list[np.ndarray] = field(default_factory=list)
    items: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    tied_beyond: list[np.ndarray] = field(default_factory=list)

    def lists(self, *, have_scores: bool) -> GivenLists:
        """All of them."""
        offsets = np.concatenate([[0], np.cumsum(_joined(self.lengths, np.int64))])
        return GivenLists(
            users=_joined(self.users, np.int32),
            offsets=offsets,
            items=_joined(self.items, np.int32),
            scores=_joined(self.scores, np.float64) if have_scores else None,
            tied_beyond=_joined(self.tied_beyond, np.bool_),
        )


@dataclass
class EntryCollector:
    """Puts lists together from rows of one entry each, in any order."""

    users: list[np.ndarray] = field(default_factory=list)
    items: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    tied_beyond: list[np.ndarray] = field(default_factory=list)

    def lists(self) -> GivenLists:
        """One list per user, in the order of their first entries where a user's lie together, else of their rows;
        sorted by score, entries of equal scores as they came."""
        users, items = _joined(self.users, np.int32), _joined(self.items, np.int32)
        scores, tied = _joined(self.scores, np.float64), _joined(self.tied_beyond, np.bool_)
        starts = _starts(users)
        if len(np.unique(users[starts])) < len(starts):  # a user's entries do not lie together
            order = np.argsort(users, kind="stable")
            users, items, scores, tied = users[order], items[order], scores[order], tied[order]
            starts = _starts(users)
        offsets = np.append(starts, len(users))
        same_list = np.ones(len(users), bool)
        same_list[starts] = False
        if (same_list[1:] & (scores[1:] > scores[:-1])).any():
            order = np.lexsort((-scores, np.repeat(np.arange(len(starts)), np.diff(offsets))))
            items, scores, tied = items[order], scores[order], tied[order]
        any_tied = np.logical_or.reduceat(tied, starts) if len(starts) else np.zeros(0, bool)
        return GivenLists(users[starts], offsets, items, scores, any_tied)


def _starts(users: np.ndarray) -> np.ndarray:
    """The first entry of each run of entries of one user."""
    if not len(users):
        return np.zeros(0, np.int64)
    return np.concatenate([[0], np.flatnonzero(users[1:] != users[:-1]) + 1])


def _joined(parts: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind, copy=False)
