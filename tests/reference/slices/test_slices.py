"""The reference slices on queries worked out by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grbench.data.histories import Histories
from grbench.data.queries import queries_at
from grbench.data.split import Queries, Split
from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.evaluation.scoring import empty_ranking
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.slices import grouping
from grbench.testing import tiny_store
from grbench.types import Ranking
from grbench_reference.protocols.last_positive import LastPositive
from grbench_reference.protocols.leave_last_out import LeaveLastOut
from grbench_reference.slices.gap import Gap
from grbench_reference.slices.history_length import HistoryLength
from grbench_reference.slices.popularity import TargetPopularity, events_of_more_popular

REGISTRY = Registry.load()
NAMES = REGISTRY.names("slices")
HOUR, DAY = 3600, 86400

# (item, action 0 = exposure or 1 = click, time); the last event of each is its target.
USERS = [
    [(1, 0, 0), (2, 1, 10), (1, 1, 10 + HOUR)],  # its history has item 1; an hour after
    [(3, 0, 0), (2, 0, HOUR + 1)],
    [(4, None, 5)],  # no history, and no action
    [(1, 0, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 0, 4), (5, 0, 5), (3, 1, 40 * DAY)],
]


def ranking(folder: Path, **described: Any) -> Ranking:
    """One query for each user, with an empty list; all events but the targets are trained on."""
    store = tiny_store(folder, USERS, num_items=6, **described)
    starts, last = np.asarray(store.offsets[:-1]), np.asarray(store.offsets[1:]) - 1
    training = TrainingData(store.catalogue, Histories(store, np.arange(4), starts, last))
    queries = queries_at(store, np.arange(4), last, next_action=3)
    return of_queries(queries, Split(training, None, queries, np.arange(1, 7)))


def of_queries(queries: Queries, split: Split) -> Ranking:
    number = len(queries)
    return dataclasses.replace(
        empty_ranking(split, 2),
        users=queries.users,
        items=np.zeros((number, 2), np.int64),
        scores=np.full((number, 2), -np.inf, np.float32),
        targets=queries.targets,
        target_actions=queries.target_actions,
        ranks=np.zeros_like(queries.targets),
        history_lengths=queries.histories.lengths,
        histories=queries.histories,
        target_times=queries.target_times,
    )


def labels(name: str, of: Ranking, **options: Any) -> list[str]:
    """Each query's group, "" for none."""
    found = grouping(REGISTRY.build("slices", Component(name, options)), of)
    return [(*found.groups, "")[code] for code in found.codes]


def test_groups_by_hand(tmp_path: Path) -> None:
    queries = ranking(tmp_path)
    assert queries.history_lengths.tolist() == [2, 1, 0, 6]
    assert labels("history_length", queries) == ["1-5", "1-5", "0", "6-10"]
    assert labels("history_length", queries, bounds=[1, 2, 5]) == ["2", "1", "0", "6+"]
    assert labels("action", queries) == ["click", "exposure", "", "click"]
    assert labels("repeat", queries) == ["repeat", "new", "new", "repeat"]
    assert labels("gap", queries) == ["0-1h", "1h-1d", "", "over 30d"]
    assert labels("gap", queries, bounds=["30min", "90min"]) == ["30min-90min", "30min-90min", "", "over 90min"]


def test_a_third_of_the_training_events_is_on_the_head_and_a_third_on_the_middle(tmp_path: Path) -> None:
    queries = ranking(tmp_path)
    # Of 9 training events, item 1 has 3, items 2 and 3 have 2 each, 4 and 5 one each, 6 none.
    assert queries.training.item_counts().tolist() == [0, 3, 2, 2, 1, 1, 0]
    assert events_of_more_popular(np.array([0, 3, 2, 2, 1, 1, 0])).tolist() == [9, 0, 3, 3, 7, 7, 9]
    targets = np.array([[1], [2], [4], [6]])
    assert labels("popularity", dataclasses.replace(queries, targets=targets)) == ["head", "middle", "tail", "cold"]
    # Items with equally many events are together, here all of the head, as none has more.
    assert labels("popularity", dataclasses.replace(queries, targets=np.array([[2], [3], [2], [3]]))) == ["middle"] * 4


def test_a_query_with_several_targets_goes_by_the_first(tmp_path: Path) -> None:
    queries = ranking(tmp_path)
    several = dataclasses.replace(
        queries,
        targets=np.array([[1, 6], [6, 1], [4, 0], [3, 1]]),
        target_actions=np.array([[3, 2], [2, 3], [1, 0], [3, 2]]),
        target_times=np.concatenate([queries.target_times, queries.target_times * 2], axis=1),  # type: ignore[operator]
    )
    assert labels("action", several) == ["click", "exposure", "", "click"]
    assert labels("popularity", several) == ["head", "cold", "tail", "middle"]
    assert labels("repeat", several) == ["repeat", "new", "new", "repeat"]
    assert labels("gap", several) == labels("gap", queries)


def test_without_a_target_there_is_no_group_by_it(tmp_path: Path) -> None:
    queries = ranking(tmp_path)
    nothing = np.zeros((4, 1), np.int64)
    without = dataclasses.replace(queries, targets=nothing, target_actions=nothing)
    for name in ("popularity", "action", "repeat", "gap"):
        assert labels(name, without) == [""] * 4


def test_what_is_not_known_gives_no_groups(tmp_path: Path) -> None:
    queries = ranking(tmp_path / "timed")
    assert labels("gap", ranking(tmp_path / "untimed", has_times=False)) == [""] * 4
    assert labels("gap", dataclasses.replace(queries, target_times=None)) == [""] * 4
    assert labels("gap", dataclasses.replace(queries, histories=None)) == [""] * 4
    assert labels("repeat", dataclasses.replace(queries, histories=None)) == [""] * 4


@pytest.mark.parametrize("protocol", [LastPositive(evaluation_share=0.5, pool="catalogue"), LeaveLastOut()])
def test_the_reference_protocols_say_all_that_slices_ask_for(tmp_path: Path, protocol: Any) -> None:
    store = tiny_store(tmp_path, [[(1, 1, 0), (2, 1, 2 * HOUR), (3, 1, 3 * DAY)]] * 6, num_items=3)
    split = protocol.split(store)
    queries = of_queries(split.test, split)
    assert set(labels("gap", queries)) == {"1d-7d"}
    assert set(labels("repeat", queries)) == {"new"}
    assert set(labels("history_length", queries)) == {"1-5"}


@pytest.mark.parametrize("name", NAMES)
def test_a_slice_divides_any_number_of_queries_into_groups_that_it_has_put_in_order(tmp_path: Path, name: str) -> None:
    part, queries = REGISTRY.build("slices", name), ranking(tmp_path)
    assert part.name == name
    order = list(part.order(queries))
    assert set(labels(name, queries)) <= {*order, ""}
    assert len(order) == len({*order})
    split = Split(queries.training, None, queries_at_none(tmp_path / "none"), np.arange(1, 7))
    assert part(empty_ranking(split, 2)).shape == (0,)


def queries_at_none(folder: Path) -> Queries:
    store = tiny_store(folder, USERS, num_items=6)
    return queries_at(store, np.zeros(0, np.int64), np.zeros(0, np.int64), next_action=3)


def test_names_say_the_options_that_differ() -> None:
    assert HistoryLength().name == "history_length"
    assert HistoryLength(bounds=[3, 30]).name == "history_length@3,30"
    assert Gap(bounds=["1h", "2d"]).name == "gap@1h,2d"
    assert TargetPopularity().name == "popularity"


@pytest.mark.parametrize(
    ("name", "bounds", "said"),
    [
        ("history_length", [5, 5], r"history_length.bounds: bounds should ascend, got \[5, 5\]"),
        ("history_length", [0, 5], "bounds.0"),
        ("history_length", [], "bounds"),
        ("gap", ["1d", "24h"], r"gap.bounds: bounds should ascend, got \[1d, 24h\]"),
        ("gap", ["1 day"], "gap.bounds: '1 day' should be a whole number with a unit"),
    ],
)
def test_bounds_that_cannot_be_are_refused(name: str, bounds: list[Any], said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        REGISTRY.build("slices", Component(name, {"bounds": bounds}))
