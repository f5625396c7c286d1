"""Samples of queries."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from grbench.data.histories import Histories
from grbench.data.split import Queries
from grbench.testing import tiny_store


def queries(tmp_path: Path, users: int) -> Queries:
    """User u has the events 1, 2 and u + 3, of which the last is the target."""
    store = tiny_store(tmp_path, [[(1, 1, 10), (2, 1, 20), (user + 3, 1, 30)] for user in range(users)])
    rows = np.arange(users)
    last = np.asarray(store.offsets[1:]) - 1
    targets = np.asarray(store.items[last], np.int64)[:, None]
    return Queries(Histories(store, rows, np.asarray(store.offsets[:-1]), last), targets, np.ones_like(targets), 1)


def test_a_sample_is_in_order_the_same_each_time_and_part_of_every_larger_one(tmp_path: Path) -> None:
    whole = queries(tmp_path, 40)
    small, again, large = whole.sample(5), whole.sample(5), whole.sample(20)
    assert small.users.tolist() == again.users.tolist() == sorted(set(small.users.tolist()))
    assert (len(small), len(large)) == (5, 20)
    assert set(small.users) < set(large.users)
    assert small.users.tolist() != [0, 1, 2, 3, 4]  # not the first ones
    assert small.targets[:, 0].tolist() == [user + 3 for user in small.users]
    assert small.histories.newest(np.arange(5), 3)[0].tolist() == [[0, 1, 2]] * 5
    assert small.target_actions.shape == (5, 1)


def test_a_sample_knows_when_its_targets_were_where_all_queries_do(tmp_path: Path) -> None:
    whole = queries(tmp_path, 40)
    timed = dataclasses.replace(whole, target_times=np.arange(40)[:, None] + 30)
    small = timed.sample(5)
    assert small.target_times is not None
    assert small.target_times[:, 0].tolist() == (small.users + 30).tolist()
    assert whole.sample(5).target_times is None


def test_a_sample_of_more_than_there_are_is_all_of_them(tmp_path: Path) -> None:
    whole = queries(tmp_path, 6)
    for size in (None, 6, 7):
        assert whole.sample(size).users.tolist() == list(range(6))
