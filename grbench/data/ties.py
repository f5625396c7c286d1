"""Ties in time: events of one user with equal times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ties:
    """Events of one user with equal times, whose order the times do not give.

    events: that share their time with another event of their user; users: who have such events; latest: users whose
    last event is one of them; broken_by: what decides the order instead, such as file_order.
    """

    events: int
    users: int
    latest: int
    broken_by: str


def count_ties(lengths: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """[3] int64: events, users and latest of `Ties`, of n users' events.

    lengths: [n] numbers of events; equal: [sum of lengths - 1], whether an event has the time of the event in the row
    before, which may be another user's.
    """
    if not equal.any():
        return np.zeros(3, np.int64)
    ends = np.cumsum(lengths)
    equals_former = np.concatenate([[False], equal])
    equals_former[ends[ends < len(equals_former)]] = False  # the first event of a user
    tied = equals_former.copy()
    tied[:-1] |= equals_former[1:]
    users = np.repeat(np.arange(len(lengths)), lengths)[tied]
    return np.array([tied.sum(), len(np.unique(users)), tied[ends[lengths > 0] - 1].sum()])
