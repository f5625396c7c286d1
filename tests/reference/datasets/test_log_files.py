"""The kinds of files in which logs are published, and what in them has been read wrong: each gives the log it holds."""

from __future__ import annotations

import bz2
import gzip
import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs import histories, store_of

from grbench.errors import DataError
from grbench_reference.datasets.interactions.dataset import Interactions

LOG = {0: [25, 19, 25, 8], 1: [5, 24, 19, 3], 2: [18, 16, 4, 25]}
"""Events of user u at seconds 1000 u, 1000 u + 60, ..."""
ROWS = [(user, item, 1000 * user + 60 * step) for user, items in LOG.items() for step, item in enumerate(items)]
UNTIMED = {"timestamp": None}
NUMBERED = {"header": False, "user": 0, "item": 1, "timestamp": 2}


def lines(rows: Any = ROWS, *, between: str = ",", header: str | None = "user,item,timestamp") -> str:
    written = [between.join(map(str, row)) for row in rows]
    return "\n".join([*([] if header is None else [header.replace(",", between)]), *written]) + "\n"


def parquet(path: Path, types: dict[str, pa.DataType], rows: Any = ROWS) -> Path:
    columns = dict(zip(("user", "item", "timestamp"), map(list, zip(*rows, strict=True)), strict=True))
    arrays = {name: pa.array(values) for name, values in columns.items()}
    for name, kind in types.items():
        texts = [str(value) for value in columns[name]]
        arrays[name] = pa.array(texts, kind) if pa.types.is_string_view(kind) else pa.array(texts).cast(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays), path)
    return path


def problem(path: Path, **options: Any) -> str:
    """What validation, the size of the store and the store itself say alike."""
    [finding] = Interactions(path=path, **options).validate(lambda *_: None)
    assert finding.status == "problem"
    with pytest.raises(DataError) as refused:
        store_of(path, path.parent / "cache", **options)
    assert str(refused.value) == finding.detail
    return finding.detail


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("log.csv", lines(), {}),
        ("LOG.CSV", lines(), {}),
        ("log.csv", lines(between=";"), {"delimiter": ";"}),
        ("log.csv", lines(header=None), NUMBERED),
        ("log.csv", lines(header=" user, item, timestamp"), {}),
        ("log.csv", lines([(user, f" {item}", f"{time}") for user, item, time in ROWS]), {}),
        ("log.csv", "\ufeff" + lines(), {}),
        ("log.csv", lines().replace("\n", "\r\n"), {}),
        ("log.tsv", lines(between=" "), {"delimiter": " "}),
        ("log.inter", lines(between="\t", header="user:token,item:token,timestamp:float"), {}),
        ("log.txt", lines(between="\t"), {"layout": "table", "delimiter": "\t"}),
        ("u.data", lines(between="\t", header=None), {"layout": "table", "delimiter": "\t"} | NUMBERED),
        (
            "ratings.dat",
            lines([(user, item, 5, time) for user, item, time in ROWS], between="::", header=None),
            {"layout": "table", "delimiter": ":", "header": False, "user": 0, "item": 2, "timestamp": 6},
        ),
        ("log.json", json.dumps(LOG), {}),
        ("log.json", "\ufeff" + json.dumps(LOG), {}),
        ("log.txt", lines([row[:2] for row in ROWS], between=" ", header=None), {"layout": "pairs"}),
        ("log.txt", lines([row[:2] for row in ROWS], between="\t ", header=None), {"layout": "pairs"}),
        (
            "train.txt",
            lines([(user, *items) for user, items in LOG.items()], between=" ", header=None),
            {"layout": "histories"},
        ),
    ],
)
@pytest.mark.parametrize("compression", [None, "gz", "bz2", "zst"])
def test_text_of_every_kind(tmp_path: Path, name: str, content: str, options: Any, compression: str | None) -> None:
    compress: dict[str | None, Callable[[bytes], bytes]] = {
        None: bytes,
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "zst": lambda text: pa.compress(text, codec="zstd", asbytes=True),
    }
    path = tmp_path / (f"{name}.{compression}" if compression else name)
    path.write_bytes(compress[compression](content.encode()))
    dataset = Interactions(path=path, **options)
    store = store_of(path, tmp_path / "cache", **options)
    assert histories(store) == LOG
    assert dataset.validate(lambda *_: None)[0].status == "ok"
    assert dataset.store_bytes() == 12 * 13 + 3 * 8 + 4 * 8 + 10 * 8  # events, users and where theirs end, items
    assert Interactions.recognises(path)


@pytest.mark.parametrize(
    "types",
    [
        {"item": pa.int32()},
        {"item": pa.uint64()},
        {"item": pa.decimal128(20, 0), "user": pa.decimal128(10, 2)},
        {"item": pa.string()},
        {"item": pa.large_string()},
        {"item": pa.string_view()},
        {"item": pa.dictionary(pa.int32(), pa.string())},
        {"timestamp": pa.float16()},
        {"timestamp": pa.float32()},
        {"timestamp": pa.decimal128(20, 3)},
        {"timestamp": pa.uint32()},
    ],
    ids=str,
)
def test_parquet_columns_of_every_type(tmp_path: Path, types: dict[str, pa.DataType]) -> None:
    rows = [(user, item, time % 997) for user, item, time in ROWS]  # float16 has whole numbers up to 2,048
    if any(kind in types.values() for kind in (pa.string_view(), pa.dictionary(pa.int32(), pa.string()))):
        types = {**types, "user": pa.string()}
    path = parquet(tmp_path / "log.parquet", types, rows)
    assert histories(store_of(path, tmp_path / "cache")) == LOG


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            {"user": pa.int64(), "item": pa.string()},
            {"user": pa.int32(), "item": pa.dictionary(pa.int32(), pa.string())},
        ),
        ({"item": pa.int8()}, {"item": pa.uint64(), "user": pa.decimal128(9, 0)}),
        ({"timestamp": pa.int32()}, {"timestamp": pa.float64(), "item": pa.int16()}),
        ({"item": pa.string_view()}, {"item": pa.large_string()}),
    ],
)
def test_parts_may_differ_in_the_types_of_equal_values(tmp_path: Path, first: Any, second: Any) -> None:
    parquet(tmp_path / "log" / "part-2.parquet", first, ROWS[:7])
    parquet(tmp_path / "log" / "part-10.parquet", second, ROWS[7:])
    assert histories(store_of(tmp_path / "log", tmp_path / "cache")) == LOG


def test_a_part_with_other_values_is_named(tmp_path: Path) -> None:
    parquet(tmp_path / "log" / "part-0.parquet", {})
    parquet(tmp_path / "log" / "part-1.parquet", {"item": pa.string()})
    said = problem(tmp_path / "log")
    assert "part-1.parquet: column item is string, but int64 in" in said
    assert "part-0.parquet; ids should be integers in all parts, or text in all" in said


def test_rows_are_counted_within_their_part(tmp_path: Path) -> None:
    parquet(tmp_path / "log" / "part-0.parquet", {})
    table = pq.read_table(tmp_path / "log" / "part-0.parquet")
    gap = table.set_column(1, "item", pa.array([1, None] + [2] * 10))
    pq.write_table(gap, tmp_path / "log" / "part-1.parquet")
    assert "part-1.parquet, row 1: item is missing" in problem(tmp_path / "log")


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    columns = [pa.array(list(column)) for column in zip(*ROWS, strict=True)]
    names = ["user", "item", "item", "timestamp"]
    pq.write_table(pa.table([columns[0], columns[1], columns[1], columns[2]], names=names), tmp_path / "log.parquet")
    assert "log.parquet: has the column item 2 times" in problem(tmp_path / "log.parquet")
    (tmp_path / "log.csv").write_text("user,item,item\n1,2,3\n")
    assert "log.csv: has the column item 2 times" in problem(tmp_path / "log.csv", **UNTIMED)


def test_whole_decimals_are_ids_and_others_are_refused(tmp_path: Path) -> None:
    table = pa.table({"user": [1, 1], "item": pa.array([Decimal("2.50"), Decimal("3.00")])})
    pq.write_table(table, tmp_path / "log.parquet")
    assert "item is decimal128(3, 2), and not whole" in problem(tmp_path / "log.parquet", **UNTIMED)


@pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
def test_ids_beyond_int64_are_text(tmp_path: Path, kind: str) -> None:
    first, second = 2**63 + 5, 2**64 - 1
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"user": pa.array([first] * 3, pa.uint64()), "item": [7, 8, 7]}), path)
        assert histories(store_of(path, tmp_path / "cache", **UNTIMED)) == {str(first): [7, 8, 7]}
        return
    rows = [(1, first), (1, second), (1, 3)]
    path.write_text(json.dumps({1: [item for _, item in rows]}) if kind == "json" else lines(rows, header="user,item"))
    store = store_of(path, tmp_path / "cache", **UNTIMED)
    assert histories(store) == {1: [str(first), str(second), "3"]}


def test_one_long_id_costs_its_own_bytes(tmp_path: Path) -> None:
    rows = [(user, f"item{user}", user) for user in range(500)] + [(1, "x" * 20_000, 1)]
    (tmp_path / "log.csv").write_text(lines(rows))
    store = store_of(tmp_path / "log.csv", tmp_path / "cache")
    assert sum(file.stat().st_size for file in store.path.iterdir()) < 100_000
    assert store.catalogue.item_ids.nbytes < 100_000


def test_ids_are_what_is_written_but_for_white_space_around_it(tmp_path: Path) -> None:
    """A character of no width is part of an id; blanks are not, and their number is said."""
    columns = {"user": ["u", "u", "u ", "u"], "item": ["a", "a\0", " a", "a b"], "timestamp": [1, 2, 3, 4]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    store = store_of(tmp_path / "log.parquet", tmp_path / "cache")
    assert histories(store) == {"u": ["a", "a\0", "a", "a b"]}
    assert store.remarks == ("2 ids were written with white space around them, which was taken off",)
    assert store.catalogue.user_ids.tolist() == ["u"]
    [finding] = Interactions(path=tmp_path / "log.parquet").validate(lambda *_: None)
    assert "2 ids were written with white space around them, which was taken off" in finding.detail


def test_quotation_marks_of_a_tab_separated_file_are_characters(tmp_path: Path) -> None:
    rows = [("a", '"x', 1), ("b", 'y"', 2), ("c", '5" disk', 3), ("d", '"', 4)]
    (tmp_path / "log.tsv").write_text(lines(rows, between="\t"))
    store = store_of(tmp_path / "log.tsv", tmp_path / "cache")
    assert histories(store) == {user: [item] for user, item, _ in rows}


def test_lines_inside_quoted_text_are_counted(tmp_path: Path) -> None:
    """Over two blocks of arrow's, so that some block ends in the middle of a quoted text."""
    events = [(user, f'"first\nsecond, {user}"', user) for user in range(60_000)]
    (tmp_path / "log.csv").write_text(lines(events) + "\n")
    store = store_of(tmp_path / "log.csv", tmp_path / "cache")
    assert len(store.items) == 60_000
    assert store.remarks == ("60,001 lines are no row: blank, or inside a quoted text",)
    assert store.catalogue.item_ids[1] == "first\nsecond, 0"
    [finding] = Interactions(path=tmp_path / "log.csv").validate(lambda *_: None)
    assert "60,001 lines are no row: blank, or inside a quoted text" in finding.detail


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("log.csv", "usér,item\n1,2\n".encode("latin-1"), UNTIMED, "log.csv: is not UTF-8"),
        ("log.csv", "user,item\né,2\n".encode("latin-1"), UNTIMED, "log.csv: cannot be read as CSV .*UTF8"),
        ("log.csv", lines(between=";").encode(), {}, "it has user;item;timestamp.* delimiter"),
        ("log.csv", lines(header=None).encode(), {}, "header: false"),
        ("log.csv", lines().encode(), NUMBERED | {"item": 3}, "has no column 3; it has 0, 1, 2"),
        ("log.csv", b"user,item,timestamp\n", {}, "none of its 0 users has 1 events or more"),
        ("log.csv.gz", gzip.compress(lines().encode(), mtime=0)[:-20], {}, "log.csv.gz: cannot be read as CSV"),
        ("log.csv", b'user,item\n1,[3]\n2,"[3, 4]"\n', UNTIMED, r"item holds lists, such as \[3\].* option history"),
        ("log.txt", b"1 2\n1 3 4\n", {"layout": "pairs"}, "line 2: has 3 fields"),
        ("log.txt", b"1 2\n\n1 3\n", {"layout": "histories"}, "line 3: user 1 occurs twice"),
        ("log.json", b"{u'user': u'a'}", {}, "is not JSON"),
        ("log.csv", b"user,item\n1,'  '\n1,   \n", UNTIMED, "row 1: item is empty text"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, content: bytes, options: Any, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert re.search(message, problem(tmp_path / name, **options))


def test_a_column_name_that_is_not_utf8(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1], "item": [2], "zzzz": [3]}), tmp_path / "log.parquet", store_schema=False)
    content = (tmp_path / "log.parquet").read_bytes()
    assert b"zzzz" in content
    (tmp_path / "log.parquet").write_bytes(content.replace(b"zzzz", "zéz".encode("latin-1") + b"z"))
    assert "log.parquet: is not UTF-8" in problem(tmp_path / "log.parquet", **UNTIMED)


@pytest.mark.parametrize("kind", ["float", "iso", "milliseconds", "parquet"])
def test_events_are_in_the_order_of_the_fractions_of_their_seconds(tmp_path: Path, kind: str) -> None:
    """Eight events a user within one second, newest first in the file."""
    moments = [(user, item, 1_600_000_000 + user, 7 - item) for user in range(3) for item in range(8)]
    options: dict[str, Any] = {}
    path = tmp_path / "log.csv"
    if kind == "float":
        path.write_text(lines([(user, item, f"{second}.{tenth}") for user, item, second, tenth in moments]))
    elif kind == "milliseconds":
        path.write_text(lines([(user, item, 1000 * second + tenth) for user, item, second, tenth in moments]))
        options = {"time_unit": "ms"}
    else:
        times = [np.datetime64(1000 * second + 100 * tenth, "ms") for _, _, second, tenth in moments]
        rows = [(user, item, time) for (user, item, *_), time in zip(moments, times, strict=True)]
        path = tmp_path / f"log.{'parquet' if kind == 'parquet' else 'csv'}"
        _ = parquet(path, {}, rows) if kind == "parquet" else path.write_text(lines(rows))
    store = store_of(path, tmp_path / "cache", **options)
    assert histories(store) == {user: list(range(7, -1, -1)) for user in range(3)}
    assert store.times.tolist() == [1_600_000_000 + user for user in range(3) for _ in range(8)]
    assert store.ties is not None
    assert store.ties.events == 0


def test_ties_stay_in_file_order_or_are_broken_by_a_seed_and_repeated_events_are_counted(tmp_path: Path) -> None:
    rows = [("u", f"i{place}", 9) for place in range(20)] + [("v", "a", 1), ("v", "a", 1), ("v", "b", 1), ("v", "a", 2)]
    path = tmp_path / "log.csv"
    path.write_text(lines(rows))
    in_file = {"u": [f"i{place}" for place in range(20)], "v": ["a", "a", "b", "a"]}
    store = store_of(path, tmp_path / "cache")
    assert histories(store) == in_file
    assert (store.ties.events, store.ties.users, store.ties.latest) == (23, 2, 1)
    assert store.ties.broken_by == "file_order"
    assert store.remarks == ("1 events have user, time, item and action of another",)
    [finding] = Interactions(path=path).validate(lambda *_: None)
    assert "1 events have user, time, item and action of another" in finding.detail

    seeded = [store_of(path, tmp_path / "cache", ties_seed=seed) for seed in (1, 1, 2)]
    assert seeded[0].ties.broken_by == "random_order_of_seed_1"
    assert seeded[0].path == seeded[1].path != seeded[2].path
    orders = [histories(each) for each in seeded]
    assert orders[0]["u"] != in_file["u"] != orders[2]["u"] != orders[0]["u"]
    assert sorted(orders[0]["u"]) == sorted(in_file["u"])
    assert orders[0]["v"][3] == "a"
