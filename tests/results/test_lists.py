"""The file of lists beside a record: what is in it, and that rankings come back from it as they were."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from grbench.data.histories import Histories
from grbench.data.split import Queries, Split
from grbench.data.training_data import TrainingData
from grbench.errors import RunError
from grbench.results.lists import lists_table, rankings_from, read_lists
from grbench.results.record import Record
from grbench.results.record_files import write_record
from grbench.testing import tiny_store
from grbench.types import Ranking


def two_lists() -> Ranking:
    # Two queries, lists of two places, the second list ended early; targets: item 3 found first, item 1 not found.
    return Ranking(
        users=np.array([1, 0]),
        items=np.array([[3, 1], [2, 0]]),
        scores=np.array([[0.5, 0.25], [1.0, -np.inf]], np.float32),
        targets=np.array([[3, 0], [1, 2]]),
        target_actions=np.array([[3, 0], [2, 1]]),
        ranks=np.array([[1, 0], [0, 1]]),
        actions=("exposure", "click"),
        pool=3,
        history_lengths=np.array([2, 1]),
        training=None,  # type: ignore[arg-type] # files of lists hold nothing of it
    )


def test_lists_speak_the_ids_of_the_source(tmp_path: Path) -> None:
    lists = lists_table(two_lists(), np.array([70, 71]), np.array([0, 2**40, 2**40 + 1, 2**40 + 2]))
    pq.write_table(lists, tmp_path / "abc.parquet")
    read = read_lists(tmp_path / "abc.parquet")
    assert read.to_pylist() == [
        {
            "user": 71,
            "history_length": 2,
            "items": [2**40 + 2, 2**40],
            "scores": [0.5, 0.25],
            "targets": [2**40 + 2],
            "ranks": [1],
            "target_actions": ["click"],
        },
        {
            "user": 70,
            "history_length": 1,
            "items": [2**40 + 1],
            "scores": [1.0],
            "targets": [2**40, 2**40 + 1],
            "ranks": [0, 1],
            "target_actions": ["exposure", None],
        },
    ]
    assert json.loads(read.schema.metadata[b"grbench"]) == {
        "schema": 2,
        "pool": 3,
        "actions": ["exposure", "click"],
        "length": 2,
        "kept_length": None,
    }


def test_string_ids_stay_strings() -> None:
    lists = lists_table(two_lists(), np.array(["u0", "u1"]), np.array(["", "a", "b", "c"]))
    assert lists["user"].to_pylist() == ["u1", "u0"]
    assert lists["items"].to_pylist() == [["c", "a"], ["b"]]


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """The world of those lists: user 1 is asked first; item 4 is no candidate, and nobody's target."""
    store = tiny_store(tmp_path, [[(2, 0, 1)], [(1, 1, 1), (3, 1, 2)]], num_items=4)
    users = np.array([1, 0])
    histories = Histories(store, users, store.offsets[users], store.offsets[users + 1])
    lists = two_lists()
    queries = Queries(histories, lists.targets, lists.target_actions, next_action=3)
    return Split(TrainingData(store.catalogue, histories), None, queries, np.array([1, 2, 3]))


def longer(lists: Ranking) -> Ranking:
    return dataclasses.replace(
        lists,
        items=np.array([[3, 1, 2], [1, 0, 0]]),
        scores=np.array([[0.5, 0.25, 0.25], [-1.0, -np.inf, -np.inf]], np.float32),
        ranks=np.array([[1, 0], [1, 3]]),
    )


def assert_same(one: Ranking, other: Ranking) -> None:
    for field in dataclasses.fields(Ranking):
        if field.name not in ("training", "actions", "pool", "histories", "target_times"):
            ours, theirs = getattr(one, field.name), getattr(other, field.name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
    assert (one.training, one.actions, one.pool) == (other.training, other.actions, other.pool)


@pytest.mark.parametrize("strings", [False, True])
def test_rankings_come_back_as_they_were(split: Split, tmp_path: Path, strings: bool) -> None:
    if strings:
        named = dataclasses.replace(
            split.training.catalogue, user_ids=np.array(["u", "v"]), item_ids=np.array(["", "zz", "b", "a", "zzz"])
        )
        split.training.catalogue = named
    catalogue = split.training.catalogue
    scored = dataclasses.replace(two_lists(), training=split.training, history_lengths=np.array([2, 1]))
    for kept in (None, longer(scored)):
        table = lists_table(scored, catalogue.user_ids, catalogue.item_ids, kept)
        pq.write_table(table, tmp_path / "lists.parquet")
        read = read_lists(tmp_path / "lists.parquet")
        assert read.equals(table)
        again, kept_again = rankings_from(read, split, tmp_path / "lists.parquet")
        assert_same(again, scored)
        assert (kept_again is None) == (kept is None)
        if kept is not None and kept_again is not None:
            assert_same(kept_again, kept)


def test_lists_of_other_data_are_refused(split: Split) -> None:
    catalogue, lists = split.training.catalogue, two_lists()
    others = {
        "users": (catalogue.user_ids[::-1], catalogue.item_ids, lists),
        "items": (catalogue.user_ids, catalogue.item_ids + 1, lists),
        "targets": (catalogue.user_ids, catalogue.item_ids, dataclasses.replace(lists, targets=lists.targets[:, ::-1])),
    }
    for user_ids, item_ids, ranking in others.values():
        with pytest.raises(RunError, match=r"x\.parquet: these lists are not from this dataset .*; remove its record"):
            rankings_from(lists_table(ranking, user_ids, item_ids), split, Path("x.parquet"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 cut short")
    with pytest.raises(RunError, match=r"x\.parquet: the lists cannot be read .*; remove its record"):
        read_lists(path)
    with pytest.raises(RunError, match=r"missing\.parquet: the lists cannot be read"):
        read_lists(tmp_path / "missing.parquet")


def test_lists_with_a_changed_byte_or_without_a_column_are_named(tmp_path: Path, split: Split) -> None:
    catalogue = split.training.catalogue
    lists = lists_table(two_lists(), catalogue.user_ids, catalogue.item_ids)
    for column in ("user", "items", "targets", "ranks"):
        with pytest.raises(RunError, match=r"x\.parquet: the lists are damaged .*; remove its record"):
            rankings_from(lists.drop_columns([column]), split, Path("x.parquet"))
    write_record(tmp_path, Record("abc", "s", "m", 0, "ok"), lists)
    path = tmp_path / "abc.parquet"
    content = bytearray(path.read_bytes())
    content[60] ^= 255  # in the first page of the first column
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"abc\.parquet: the lists cannot be read .*; remove its record"):
        read_lists(path)


def test_lists_of_version_1_are_not_taken_for_todays(split: Split) -> None:
    (path,) = (Path(__file__).parent / "version_1").glob("*.parquet")
    with pytest.raises(RunError, match="these lists are not from this dataset and split"):
        rankings_from(read_lists(path), split, path)
