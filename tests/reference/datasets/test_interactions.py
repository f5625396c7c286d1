"""Logs of interactions in JSON, CSV and parquet become the store that they describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import histories, store_of
from real_data import BEAUTY, needs_beauty

from grbench.data.store import Store
from grbench.errors import DataError
from grbench.interfaces import Dataset
from grbench.registry.options import bind
from grbench_reference.datasets.interactions import log as interaction_log
from grbench_reference.datasets.interactions.dataset import Interactions
from grbench_reference.datasets.tencentgr.validation import Finding

# Two users whose events are mixed; u2's last two share a second, and keep the order of the file.
ROWS = [
    ("u2", "b", 30, "click"),
    ("u1", "a", 5, "view"),
    ("u2", "a", 10, None),
    ("u2", "c", 30, "view"),
    ("u1", "b", 4, "click"),
]


def write_csv(path: Path, rows: list[tuple[Any, ...]], header: str = "user,item,timestamp,action") -> Path:
    lines = [header, *(",".join("" if value is None else str(value) for value in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_parquet(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    names = ("user", "item", "timestamp", "action")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)
    return path


def test_is_a_dataset_whose_options_have_defaults(tmp_path: Path) -> None:
    assert isinstance(Interactions(path="log.csv"), Dataset)
    assert bind(Interactions, {"path": "log.csv"}, "dataset") == {
        "path": "log.csv",
        "file": None,
        "layout": None,
        "user": "user",
        "item": "item",
        "timestamp": "timestamp",
        "time_unit": "s",
        "ties_seed": None,
        "action": None,
        "actions": None,
        "history": None,
        "delimiter": None,
        "header": True,
        "min_events": 1,
    }


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('{"7": [0, 30, 0], "3": [], "12": [4]}')
    store = store_of(path, tmp_path / "cache")

    assert store.catalogue.item_ids.tolist() == [0, 0, 4, 30]  # the first 0 is padding, the second the source's item 0
    assert store.items.tolist() == [1, 3, 1, 2]
    assert store.catalogue.user_ids.tolist() == [7, 12]  # user 3 has no event, and one is wanted at least
    assert store.offsets.tolist() == [0, 3, 4]
    assert store.actions.tolist() == [2, 2, 2, 2]
    assert store.times.tolist() == [0, 0, 0, 0]
    assert not store.catalogue.has_times
    assert store.catalogue.actions == ("interaction",)
    assert store.candidates is None
    assert store.notes["users_with_fewer_events_than_min_events"] == 1


def test_json_with_names(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('{"ann": ["tea", "007"], "bob": ["7", "tea"]}')
    store = store_of(path, tmp_path / "cache")

    assert store.catalogue.item_ids.tolist() == ["", "007", "7", "tea"]
    assert histories(store) == {"ann": ["tea", "007"], "bob": ["7", "tea"]}


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "parts"])
def test_tables_say_the_same_whatever_their_kind(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        path = write_parquet(tmp_path / "log" / "log.parquet", ROWS)
    elif kind == "parts":
        path = write_parquet(tmp_path / "log" / "part-0.parquet", ROWS[:2]).parent
        write_parquet(path / "part-1.parquet", ROWS[2:])
    else:
        path = write_csv(tmp_path / f"log.{kind}", ROWS)
        path.write_text(path.read_text().replace(",", "\t" if kind == "tsv" else ","))
    store = store_of(path, tmp_path / "cache", action="action", actions=["view", "click"])

    assert histories(store) == {"u2": ["a", "b", "c"], "u1": ["b", "a"]}
    assert store.times.tolist() == [10, 30, 30, 4, 5]
    assert store.actions.tolist() == [1, 3, 2, 3, 2]
    assert store.catalogue.actions == ("view", "click")
    assert store.catalogue.has_times
    assert store.notes["events_without_action"] == 1


def test_without_times_rows_are_in_order(tmp_path: Path) -> None:
    store = store_of(write_csv(tmp_path / "log.csv", ROWS), tmp_path / "cache", timestamp=None)

    assert histories(store) == {"u2": ["b", "a", "c"], "u1": ["a", "b"]}
    assert not store.catalogue.has_times
    assert not store.times.any()


def test_named_columns_and_dates(tmp_path: Path) -> None:
    rows = [(5, 70, "1970-01-01 00:01:00"), (5, 60, "1970-01-01 00:00:30")]
    path = write_csv(tmp_path / "log.inter", rows, "user_id:token,item_id:token,when")
    path.write_text(path.read_text().replace(",", "\t"))
    options = {"user": "user_id:token", "item": "item_id:token", "timestamp": "when"}
    store = store_of(path, tmp_path / "cache", **options)

    assert histories(store) == {5: [60, 70]}
    assert store.times.tolist() == [30, 60]


@pytest.mark.parametrize(
    ("values", "names", "known", "tokens"),
    [
        (["b", "a", None], None, ("a", "b"), [3, 2, 1]),
        (["b", "a", None], ["b", "z", "a"], ("b", "z", "a"), [2, 4, 1]),
        ([5, 1, None], None, ("1", "5"), [3, 2, 1]),
        ([0, 2, None], ["show", "click", "buy"], ("show", "click", "buy"), [2, 4, 1]),
        ([True, False, None], None, ("0", "1"), [3, 2, 1]),
    ],
)
def test_actions(tmp_path: Path, values: list[Any], names: list[str] | None, known: Any, tokens: list[int]) -> None:
    rows = [("u", "i", second, value) for second, value in enumerate(values)]
    path = write_parquet(tmp_path / "log.parquet", rows)
    store = store_of(path, tmp_path / "cache", action="action", actions=names)

    assert store.catalogue.actions == known
    assert store.actions.tolist() == tokens


def test_users_of_few_events_leave_with_their_items(tmp_path: Path) -> None:
    store = store_of(write_csv(tmp_path / "log.csv", ROWS), tmp_path / "cache", min_events=3, action="action")

    assert histories(store) == {"u2": ["a", "b", "c"]}
    assert store.actions.tolist() == [1, 2, 3]
    store = store_of(write_csv(tmp_path / "log.csv", [*ROWS, ("u3", "z", 1, "view")]), tmp_path / "cache", min_events=2)
    assert store.catalogue.item_ids.tolist() == ["", "a", "b", "c"]


def size_of(store: Store) -> int:
    """Without store.json, each column's header of 128 bytes, and the empty tables of features."""
    return sum(file.stat().st_size - 128 for file in store.path.glob("*.npy"))


@pytest.mark.parametrize("kind", ["log.csv", "log.parquet", "log.json"])
@pytest.mark.parametrize("min_events", [1, 3])
def test_the_store_of_a_small_log_is_as_large_as_foretold(tmp_path: Path, kind: str, min_events: int) -> None:
    path = tmp_path / kind
    if kind == "log.json":
        path.write_text(json.dumps({"u2": ["b", "aaa", "c"], "u1": ["a", "b"]}))
    else:
        (write_csv if kind == "log.csv" else write_parquet)(path, ROWS)
    dataset = Interactions(path=str(path), min_events=min_events)
    assert isinstance(dataset, Dataset)
    # The text of ids has an offset more than there are users, and that of items another for padding.
    assert size_of(store_of(path, tmp_path / "cache", min_events=min_events)) - dataset.store_bytes() in range(17)


@pytest.mark.parametrize("order", ["by user", "by time"])
@pytest.mark.parametrize("kind", ["log.csv", "log.parquet", "parts", "log.json"])
def test_the_store_of_a_large_log_is_about_as_large_as_foretold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, order: str
) -> None:
    """From the first tenth, within a third: names of 40 bytes, so that who and what comes again later counts."""
    monkeypatch.setattr(interaction_log, "SAMPLED_ROWS", 2000)
    monkeypatch.setattr(interaction_log, "SAMPLED_BYTES", 60_000)
    rng = np.random.default_rng(0)
    users = rng.permutation(np.repeat(np.arange(1000), 20))
    items = np.minimum(rng.zipf(1.3, len(users)), 3000)
    who = zip(users, items, strict=True)
    rows = [(f"user-{user:05}", f"item-{item:05}", time, "x") for time, (user, item) in enumerate(who)]
    if order == "by user" or kind == "log.json":
        rows.sort(key=lambda row: row[0])
    path = tmp_path / kind
    if kind == "parts":
        for part in range(4):
            write_parquet(path / f"{part}.parquet", rows[part * 5000 : (part + 1) * 5000])
    elif kind == "log.parquet":
        write_parquet(path, rows)
    elif kind == "log.csv":
        write_csv(path, rows)
    else:
        histories_of: dict[str, list[str]] = {}
        for user, item, *_ in rows:
            histories_of.setdefault(user, []).append(item)
        path.write_text(json.dumps(histories_of))
    foretold = Interactions(path=str(path)).store_bytes()
    assert foretold == pytest.approx(size_of(store_of(path, tmp_path / "cache")), rel=0.33)


def test_a_log_whose_beginning_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"]" * 50: [1, 2], "b": [3]}))
    whole = Interactions(path=str(path)).store_bytes()
    monkeypatch.setattr(interaction_log, "SAMPLED_BYTES", 40)
    assert whole == 3 * 13 + 51 + 2 * 8 + 3 * 8 + 4 * 8  # events, users' text and where it and their events end, items
    assert Interactions(path=str(path)).store_bytes() is None
    empty = write_csv(tmp_path / "empty.csv", [])
    assert Interactions(path=str(empty)).store_bytes() == 0


def test_the_file_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "Beauty.inter.json").write_text('{"0": [1]}')
    (folder / "Beauty.index.json").write_text('{"0": ["<a_1>"]}')
    (folder / "other.json").write_text('{"0": [2]}')

    assert histories(store_of(folder, tmp_path / "cache")) == {0: [1]}
    assert histories(store_of(folder, tmp_path / "cache", file="other.json")) == {0: [2]}
    (folder / "Beauty.inter.json").unlink()
    with pytest.raises(DataError, match=r"holds Beauty\.index\.json, other\.json; choose one with the option file"):
        store_of(folder, tmp_path / "cache")


def test_digest_follows_content_and_options(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ROWS)
    digests = {Interactions(path=str(path), min_events=events).digest() for events in (1, 2)}
    write_csv(path, ROWS[:-1])
    digests.add(Interactions(path=str(path)).digest())

    assert len(digests) == 3
    assert digests >= {Interactions(path=str(path)).digest()}


@settings(max_examples=30)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["x", "y", "10"]), st.integers(-3, 5), st.integers(0, 4)), min_size=1, max_size=12
    )
)
def test_a_table_equals_a_stable_sort_of_each_user(tmp_path_factory: Any, rows: list[tuple[str, int, int]]) -> None:
    folder = tmp_path_factory.mktemp("log")
    store = store_of(write_csv(folder / "log.csv", rows, "user,item,timestamp"), folder / "cache")

    expected: dict[str, list[tuple[str, int, int]]] = {}
    for row in rows:
        expected.setdefault(row[0], []).append(row)
    assert {str(user): items for user, items in histories(store).items()} == {
        user: [item for _, item, _ in sorted(events, key=lambda event: event[2])] for user, events in expected.items()
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.json", "{", r"log\.json: is not JSON .*it should be \{user: \[item, \.\.\.\]\}"),
        ("log.json", "[1]", r"log\.json: is a JSON list"),
        ("log.json", '{"a": 3}', r"log\.json: user 'a' has '3'; it should be a list of items"),
        ("log.json", '{"a": [1], "a": [2]}', r"log\.json: user 'a' occurs twice"),
        ("log.json", '{"a": [1, "b"]}', r"log\.json: items should be all numbers or all text"),
        ("log.json", '{"a": [[1]]}', r"log\.json: items is list<.*ids should be integers or text"),
        ("log.json", '{"a": [1.5]}', r"log\.json: items is double"),
        ("log.json", '{"a": [1, null]}', r"log\.json, row 1: items is missing"),
        ("log.json", '{"a": []}', r"log\.json: none of its 1 users has 1 event"),
        ("log.csv", "", r"log\.csv: cannot be read as CSV"),
        ("log.csv", "user,item\n1,2\n", r"log\.csv: has no column timestamp; it has user, item\. .*timestamp: null"),
        ("log.csv", "user,item,timestamp\n1,2\n", r"log\.csv: cannot be read as CSV"),
        ("log.csv", "user,item,timestamp\n1,2,3\n4,,5\n", r"log\.csv, row 1: item is missing"),
        ("log.csv", "user,item,timestamp\n1,2,3\n4,5,\n", r"log\.csv, row 1: column timestamp has no time"),
        ("log.csv", "user,item,timestamp\n1,2,soon\n", r"log\.csv: column timestamp is string; it should be unix"),
        (
            "log.csv",
            "user,item,timestamp\n1,2,1745456042000\n",
            r"row 0: column timestamp has 1745456042000, which may",
        ),
        ("log.parquet", "PAR1", r"log\.parquet: cannot be read as parquet"),
        ("log.txt", "1 2", r"log\.txt: has an unknown suffix; known are \.json, \.parquet, \.csv"),
    ],
)
def test_bad_input(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(DataError, match=message):
        store_of(tmp_path / name, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (["click", "buy"], r"column action has 'view'; actions are click, buy"),
        ([], r"has 0 kinds of action"),
        (["view", "view"], r"with different names"),
    ],
)
def test_bad_actions(tmp_path: Path, actions: list[str], message: str) -> None:
    path = write_csv(tmp_path / "log.csv", ROWS)

    with pytest.raises(DataError, match=message):
        store_of(path, tmp_path / "cache", action="action", actions=actions)


def test_validation(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ROWS)

    assert Interactions(path=str(path), action="action").validate(lambda *_: None) == [
        Finding("log.csv", "ok", 5, "2 users, 3 items, 5 events, 2 to 3 a user; actions click, view")
    ]
    [finding] = Interactions(path=str(path), timestamp="when").validate(lambda *_: None)
    assert (finding.part, finding.status, finding.rows) == ("log.csv", "problem", None)
    assert "has no column when" in finding.detail


def test_recognises(tmp_path: Path) -> None:
    assert not Interactions.recognises(tmp_path)
    write_csv(tmp_path / "log.csv", ROWS)
    assert Interactions.recognises(tmp_path)
    assert Interactions.recognises(tmp_path / "log.csv")
    (tmp_path / "log.json").touch()
    assert not Interactions.recognises(tmp_path)  # which of the two?
    assert not Interactions.recognises(tmp_path / "nowhere")


def test_missing_path_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: does not exist"):
        Interactions(path=str(tmp_path / "nowhere")).digest()
    with pytest.raises(DataError, match="holds no log of interactions"):
        Interactions(path=str(tmp_path)).digest()


@needs_beauty
def test_amazon_beauty(tmp_path: Path) -> None:
    store = store_of(BEAUTY, tmp_path)
    source = json.loads((BEAUTY / "Beauty.inter.json").read_text())

    assert (store.catalogue.num_users, store.catalogue.num_items, len(store.items)) == (22_363, 12_101, 198_502)
    assert histories(store) == {int(user): items for user, items in source.items()}
    assert np.array_equal(store.catalogue.item_ids[1:], np.arange(12_101))
