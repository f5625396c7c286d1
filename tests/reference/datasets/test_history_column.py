"""A table with a row for each prefix of a user's events, or with each user's whole list, gives every event once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs import histories, store_of

from grbench.errors import DataError, SuiteError
from grbench_reference.datasets.interactions.dataset import Interactions

LOG = {"A": ["a", "b", "c", "d", "a"], "B": ["c", "b"], "C": ["b", "b", "b"]}
OPTIONS: dict[str, Any] = {"user": "user_id", "item": "item_id", "history": "item_id_list", "timestamp": None}


def prefixes(longest: int, first: int = 1) -> list[tuple[str, list[str], str]]:
    """(user, history, item) of each event from the one at `first` on, histories cut to their newest items."""
    return [
        (user, items[max(0, place - longest) : place], items[place])
        for user, items in LOG.items()
        for place in range(first, len(items))
    ]


def written(path: Path, rows: list[tuple[str, list[str], str]], how: str) -> Path:
    if how == "parquet":
        users, lists, items = map(list, zip(*rows, strict=True))
        pq.write_table(pa.table({"user_id": users, "item_id_list": lists, "item_id": items}), path)
        return path
    header, between, text = {
        "brackets": ("user_id,item_id_list,item_id", ",", lambda items: f'"{items}"'),
        "json": ("user_id;item_id_list;item_id", ";", lambda items: f"[{', '.join(items)}]"),
        "recbole": ("user_id:token\titem_id_list:token_seq\titem_id:token", "\t", " ".join),
    }[how]
    lines = [between.join([user, text(items), item]) for user, items, item in rows]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("how", "name", "options"),
    [
        ("brackets", "log.csv", {}),
        ("json", "log.csv", {"delimiter": ";"}),
        ("recbole", "log.inter", {}),
        ("parquet", "log.parquet", {}),
    ],
)
@pytest.mark.parametrize("rows", [prefixes(9), prefixes(9, first=0), prefixes(2), prefixes(1)])
def test_every_event_is_there_once(tmp_path: Path, how: str, name: str, options: Any, rows: Any) -> None:
    path = written(tmp_path / name, rows, how)
    assert histories(store_of(path, tmp_path / "cache", **OPTIONS, **options)) == LOG


def test_prefixes_may_be_in_any_order_and_in_several_files(tmp_path: Path) -> None:
    """Whole histories order themselves; those that are cut to a length are in the order of the files."""
    rows = prefixes(9)
    written(tmp_path / "test.inter", rows[:3], "recbole")
    written(tmp_path / "train.inter", rows[:2:-1], "recbole")
    options = OPTIONS | {"file": ["test.inter", "train.inter"]}
    assert histories(store_of(tmp_path, tmp_path / "cache", **options)) == LOG
    last = {user: max(place for place, row in enumerate(prefixes(2)) if row[0] == user) for user in LOG}
    cut = prefixes(2)
    written(tmp_path / "train.inter", [row for place, row in enumerate(cut) if place != last[row[0]]], "recbole")
    written(tmp_path / "test.inter", [cut[place] for place in last.values()], "recbole")
    options = OPTIONS | {"file": ["train.inter", "test.inter"]}
    assert histories(store_of(tmp_path, tmp_path / "cache", **options)) == LOG


def test_whole_lists(tmp_path: Path) -> None:
    rows = [(user, items[:length], "-") for user, items in LOG.items() for length in (len(items), len(items), 1)]
    path = written(tmp_path / "log.inter", rows, "recbole")
    assert histories(store_of(path, tmp_path / "cache", **OPTIONS | {"item": None})) == LOG
    path = written(tmp_path / "log.inter", [*rows, ("A", ["a", "c"], "-")], "recbole")
    with pytest.raises(DataError, match=r"log\.inter, row 9: its list is not the beginning of the user's longest list"):
        store_of(path, tmp_path / "cache", **OPTIONS | {"item": None})


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ([("A", ["a"], "b"), ("A", ["a", "b", "c"], "d")], 1),  # the row of c is in another file
        ([("A", ["a"], "b"), ("A", ["b"], "c"), ("A", ["a", "c"], "d")], 2),
        ([("B", ["a"], "b"), ("A", ["a", "b"], "c"), ("A", ["x", "b", "c"], "d")], 2),
        ([("A", ["a"], "b"), ("A", ["a"], "b")], 1),
    ],
)
def test_a_row_that_does_not_go_on_where_the_others_end_is_named(tmp_path: Path, rows: Any, row: int) -> None:
    path = written(tmp_path / "log.inter", rows, "recbole")
    with pytest.raises(DataError, match=rf"log\.inter, row {row}: its list is not what stands before its item"):
        store_of(path, tmp_path / "cache", **OPTIONS)


def test_lists_have_no_times(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"set dataset\.timestamp to null"):
        Interactions(path=tmp_path, history="item_id_list")
