"""What was altered after it was written is named and refused, whatever it is; what was only laid out anew is not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import a_record

from grbench.report.table import tables
from grbench.results import checksums
from grbench.results.checksums import AlteredError, file_checksum, known_checksum
from grbench.results.integrity import altered_lists, intact_records, with_altered
from grbench.results.record import Record
from grbench.results.record_files import ranking_path, read_record, read_records, record_path, write_record
from grbench.results.values import with_values


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "_known", {})
    return tmp_path / "cache"


def written(folder: Path, digest: str, hits: tuple[float, ...] = (1.0, 0.0), **values: Any) -> Path:
    lists = with_values(pa.table({"user": np.arange(len(hits))}), {"hit_rate@10": np.array(hits)})
    record = replace(a_record(digest, 0, float(np.mean(hits)), **values), digest=digest)
    return write_record(folder, record, lists)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    if not pairs:
        yield path
    for key, value in pairs:
        yield from leaves(value, (*path, key))


def test_an_edit_of_any_single_value_is_refused() -> None:
    text = a_record("m", 0, 0.25).to_json()
    paths = list(leaves(json.loads(text)))
    assert len(paths) > 40
    for path in paths:
        tree = inner = json.loads(text)
        for key in path[:-1]:
            inner = inner[key]
        old = inner[path[-1]]
        inner[path[-1]] = (
            not old if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else f"{old or ''}0"
        )
        with pytest.raises(checksums.RunError, match=r"x\.json"):
            Record.from_json(json.dumps(tree), "x.json")


def test_a_score_edited_to_99_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a")
    path.write_text(path.read_text().replace('"hit_rate@10": 0.5', '"hit_rate@10": 0.99'))
    with pytest.raises(AlteredError, match=r"a\.json: the record was altered after it was written"):
        read_record(path)


def test_another_layout_of_the_same_content_is_the_same() -> None:
    record = a_record("m", 0, 0.25)
    text = json.dumps(json.loads(record.to_json()), sort_keys=True, separators=(",", ":"))
    assert Record.from_json(text, "x.json") == record


@settings(max_examples=200, deadline=None)
@given(
    score=st.floats(allow_nan=True, allow_infinity=True) | st.integers(),
    text=st.text(alphabet=st.characters(exclude_categories=["Cs"])),
)
def test_whatever_can_be_written_is_read_again(score: float, text: str) -> None:
    record = a_record("m", 0, 0.5, curve=[{"loss": score, text: text}], title=text)
    assert Record.from_json(record.to_json().encode(), "x.json").checksum


def test_a_record_of_this_schema_needs_a_checksum_and_an_older_one_does_not() -> None:
    values = json.loads(a_record("m", 0, 0.25).to_json())
    del values["checksum"]
    with pytest.raises(AlteredError):
        Record.from_json(json.dumps(values), "x.json")
    older = Record.from_json(json.dumps(values | {"schema": 2}), "x.json")
    assert older.checksum == ""
    (table,) = tables([replace(older, folder=Path("somewhere"))])
    assert "Without checksums, written by an earlier grbench: all records" in table.footer


def test_all_that_was_altered_is_named_at_once(tmp_path: Path) -> None:
    for digest in "abcde":
        written(tmp_path, digest)
    for digest in "ab":
        path = record_path(tmp_path, digest)
        path.write_text(path.read_text().replace("0.5", "0.99"))
    table = pq.read_table(ranking_path(tmp_path, "c"))
    pq.write_table(with_values(table, {"hit_rate@10": np.array([1.0, 1.0])}), ranking_path(tmp_path, "c"))
    ranking_path(tmp_path, "d").unlink()
    with pytest.raises(AlteredError) as raised:
        intact_records([tmp_path])
    lines = str(raised.value).splitlines()
    assert [line.partition(": ")[0].rpartition("/")[2] for line in lines[:-1]] == [
        "a.json",
        "b.json",
        "c.parquet",
        "d.parquet",
    ]
    assert lines[2].endswith("the lists were altered after they were written (their checksum is another)")
    assert lines[3].endswith("the lists are gone")
    assert "grbench run SUITE" in lines[4]
    left: list[Path] = []
    records = read_records([tmp_path], altered=lambda path, error: left.append(path))
    assert [path.name for path in left] == ["a.json", "b.json"]
    with pytest.raises(AlteredError, match=r"c\.parquet[^\n]*\n[^\n]*d\.parquet"):
        tables(records)
    assert [with_altered(record).done for record in records] == [False, False, True]


def test_lists_that_another_process_replaced_with_their_record_are_not_altered(tmp_path: Path) -> None:
    before = read_record(written(tmp_path, "a"))
    written(tmp_path, "a", (1.0, 1.0, 0.0))
    assert altered_lists(before) is None


def test_a_large_file_is_read_once_until_it_changes(tmp_path: Path, cache: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(checksums, "CACHED_BYTES", 4)
    path = tmp_path / "large"
    path.write_bytes(b"content")
    os.utime(path, (1, 1))
    monkeypatch.setattr(checksums, "SETTLED_SECONDS", -1.0)  # the time of its entry is just now
    first = known_checksum(path)
    read: list[Path] = []
    monkeypatch.setattr(checksums, "file_checksum", lambda each: read.append(each) or file_checksum(each))
    assert known_checksum(path) == first
    monkeypatch.setattr(checksums, "_known", {})  # as in another process
    assert known_checksum(path) == first
    assert read == []
    path.write_bytes(b"CONTENT")  # as long
    os.utime(path, (1, 1))
    assert known_checksum(path) != first
    assert len(read) == 1
    (cache / checksums.CACHE_FILE).write_text("{broken")
    monkeypatch.setattr(checksums, "_known", {})
    assert known_checksum(path) == file_checksum(path)


def test_a_file_that_was_just_written_is_read_each_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert known_checksum(path) == file_checksum(path)
    assert checksums._known == {}
