"""Which files of a folder are one log: never several tables that happen to lie together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs import histories, store_of

from grbench.errors import DataError
from grbench_reference.datasets.interactions.dataset import Interactions

TRAIN, TEST = {"user": [1, 1, 2], "item": [5, 6, 5]}, {"user": [1, 2], "item": [7, 8]}
UNTIMED: dict[str, Any] = {"timestamp": None}


def write(folder: Path, **parts: dict[str, list[Any]]) -> Path:
    for name, columns in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("train-00000-of-00001", "validation-00000-of-00001"),
        ("Beauty_train", "Beauty_val"),
        ("part.TRAINING", "dev"),
        ("all", "test_users"),
    ],
)
def test_parts_whose_names_say_so_are_asked_about(tmp_path: Path, train: str, test: str) -> None:
    folder = write(tmp_path / "log", **{train: TRAIN, test: TEST})
    with pytest.raises(DataError) as refused:
        Interactions(path=folder, **UNTIMED).digest()
    said = str(refused.value)
    assert said.count("\n") == 0
    assert all(name in said for name in (f"{train}.parquet", f"{test}.parquet", "option file", "file: '*.parquet'"))
    assert Interactions.recognises(folder)
    assert histories(store_of(folder, tmp_path / "a", **UNTIMED, file=f"{train}.parquet")) == {1: [5, 6], 2: [5]}
    whole = {1: [5, 6, 7], 2: [5, 8]}
    files = [f"{train}.parquet", f"{test}.parquet"]
    assert histories(store_of(folder, tmp_path / "b", **UNTIMED, file=files)) == whole
    backwards = {1: [7, 5, 6], 2: [8, 5]}
    assert histories(store_of(folder, tmp_path / "c", **UNTIMED, file=files[::-1])) == backwards
    assert len(store_of(folder, tmp_path / "d", **UNTIMED, file="*.parquet").items) == 5


def test_parts_whose_columns_say_so_are_asked_about(tmp_path: Path) -> None:
    folder = write(tmp_path / "log", events=TRAIN, titles={"item": [5, 6], "title": ["x", "y"]})
    said = r"different tables \(events\.parquet with item, user; titles\.parquet with item, title\)"
    with pytest.raises(DataError, match=said):
        Interactions(path=folder, **UNTIMED).digest()
    assert len(store_of(folder, tmp_path / "cache", **UNTIMED, file="events.parquet").items) == 3


@pytest.mark.parametrize("names", [("part-0", "part-1"), ("train-0", "train-1"), ("latest", "contest"), ("a1f", "b2e")])
def test_parts_of_one_table_are_joined(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = write(tmp_path / "log", **dict(zip(names, (TRAIN, TEST), strict=True)))
    assert len(store_of(folder, tmp_path / "cache", **UNTIMED).items) == 5


def test_folders_of_partitions_are_read_by_a_pattern(tmp_path: Path) -> None:
    folder = write(tmp_path / "log", **{"day=9/part-0": TRAIN, "day=10/part-0": TEST})
    with pytest.raises(DataError, match=r"it has folders \(day=9, day=10\): file: '\*/\*\.parquet' would read"):
        Interactions(path=folder).digest()
    store = store_of(folder, tmp_path / "cache", **UNTIMED, file="*/*.parquet")
    assert histories(store) == {1: [5, 6, 7], 2: [5, 8]}
    with pytest.raises(DataError, match=r"has no file day=7/\*"):
        Interactions(path=folder, file="day=7/*").digest()


def test_a_missing_part_is_said(tmp_path: Path) -> None:
    folder = write(tmp_path / "log", **{"part-00000-of-00003": TRAIN, "part-00002-of-00003": TEST})
    with pytest.raises(DataError, match="part-00001-of-00003 is missing"):
        Interactions(path=folder).digest()


def test_text_files_of_a_folder_are_one_log_only_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1 5 6\n2 5\n")
    (tmp_path / "test.txt").write_text("1 7\n2 8\n")
    for options in ({}, {"layout": "histories"}):
        with pytest.raises(DataError, match=re.escape("holds test.txt, train.txt; choose one with the option file")):
            Interactions(path=tmp_path, **options).digest()
    options = {"layout": "histories", "file": ["train.txt", "test.txt"]}
    assert histories(store_of(tmp_path, tmp_path / "cache", **options)) == {1: [5, 6, 7], 2: [5, 8]}


def test_files_of_two_kinds_are_refused(tmp_path: Path) -> None:
    write(tmp_path, log=TRAIN)
    (tmp_path / "log.csv").write_text("user,item\n1,5\n")
    with pytest.raises(DataError, match=r"log\.csv, log\.parquet are not of one kind"):
        Interactions(path=tmp_path, file="log.*").digest()
    with pytest.raises(DataError, match="are not of one kind, or not as layout: pairs says"):
        Interactions(path=tmp_path, file="log.parquet", layout="pairs").digest()
