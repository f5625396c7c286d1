"""Filters of the pool, and the targets that they make unreachable, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grbench.data.histories import Histories
from grbench.data.queries import queries_at
from grbench.data.split import Split
from grbench.data.store import Store
from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.evaluation.filters import filtered_candidates, unreachable_targets
from grbench.registry.options import bind
from grbench.suite.method import _filters
from grbench.testing import tiny_store
from grbench_reference.protocols.leave_last_out import LeaveLastOut


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Three training users with 1, 2, 3, one of them each; 30 evaluated ones, whose targets are 1 to 3 for the first
    13, 4, which the catalogue has and nobody was trained on, for 10, and 5, only in the candidate table, for 7."""
    targets = [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1] + [4] * 10 + [5] * 7
    histories = [[(item, 0, 0)] for item in (1, 2, 3)] + [[(3, 0, 0), (1, 0, 1), (item, 0, 2)] for item in targets]
    store = tiny_store(tmp_path, histories, num_items=6)
    store = replace(store, catalogue=replace(store.catalogue, num_indexed=4))
    return split_of(store, training=np.arange(3), test=np.arange(3, 33))


def split_of(store: Store, training: np.ndarray, test: np.ndarray) -> Split:
    starts, stops = np.asarray(store.offsets[:-1]), np.asarray(store.offsets[1:])
    data = TrainingData(store.catalogue, Histories(store, training, starts[training], stops[training]))
    return Split(data, None, queries_at(store, test, stops[test] - 1, 2), np.arange(1, 7))


def test_the_two_filters_of_the_pool_leave_out_different_candidates(split: Split) -> None:
    assert filtered_candidates(split, 1, []).tolist() == [1, 2, 3, 4, 5, 6]
    assert filtered_candidates(split, 1, ["not_indexed"]).tolist() == [1, 2, 3, 4]
    assert filtered_candidates(split, 1, ["no_training_event"]).tolist() == [1, 2, 3]
    assert filtered_candidates(split, 1, ["history"]).tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(SuiteError, match=r"pool of 3 candidates \(filters: not_indexed, history, no_training_event\)"):
        filtered_candidates(split, 4, ["not_indexed", "history", "no_training_event"])


def test_targets_that_a_filter_leaves_out_are_counted(split: Split) -> None:
    assert unreachable_targets(split, split.test, []) == {}
    assert unreachable_targets(split, split.test, ["no_training_event"]) == {"no_training_event": 17, "any": 17}
    assert unreachable_targets(split, split.test, ["not_indexed"]) == {"not_indexed": 7, "any": 7}
    # Of the targets 1, 2 and 3 every user has met 1 and 3: 5 + 4 of the first 13.
    expected = {"history": 9, "no_training_event": 17, "any": 26}
    assert unreachable_targets(split, split.test, ["history", "no_training_event"]) == expected


def test_where_the_catalogue_is_all_there_is_every_candidate_is_indexed(tmp_path: Path) -> None:
    store = tiny_store(tmp_path, [[(1, 0, 0), (2, 0, 1), (3, 0, 2), (2, 0, 3)]] * 2)
    split = LeaveLastOut().split(store)
    assert filtered_candidates(split, 1, ["not_indexed"]).tolist() == [1, 2, 3]
    assert unreachable_targets(split, split.test, ["history", "not_indexed"]) == {
        "history": 2,
        "not_indexed": 0,
        "any": 2,
    }


def test_many_queries_are_counted_block_by_block(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = unreachable_targets(split, split.test, ["history"])
    monkeypatch.setattr("grbench.data.histories.ROWS_AT_ONCE", 7)
    assert unreachable_targets(split, split.test, ["history"]) == whole


def test_the_former_name_is_refused_with_both_new_ones() -> None:
    with pytest.raises(
        SuiteError, match=r"filters.1: is two filters now: not_indexed .* no_training_event .* got .cold"
    ):
        bind(_filters, {"filters": ["history", "cold"]}, "methods.m")
