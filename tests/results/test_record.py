"""What is kept of a cell, and what happens when it cannot be."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from grbench.errors import RunError
from grbench.results.checksums import content_checksum
from grbench.results.record import SCHEMA_VERSION, Record
from grbench.results.record_files import latest, ranking_path, read_record, read_records, record_path, write_record


def a_record(digest: str = "abc", **values: object) -> Record:
    defaults = {"suite": "tiny", "method": "baseline", "seed": 0, "status": "ok", "scores": {"hit_rate@2": 0.5}}
    return Record(digest=digest, **(defaults | values))


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = a_record(counts={"evaluated": 7, "dropped": {"no_positive": 1}}, curve=[{"epoch": 1, "loss": 2.5}])
    path = write_record(tmp_path / "new" / "folder", record)
    assert read_record(path) == record
    assert [file.name for file in path.parent.iterdir()] == ["abc.json"]


def test_numbers_of_numpy_and_what_json_cannot_say(tmp_path: Path) -> None:
    record = a_record(scores={"ndcg@2": np.float64(0.25)}, curve=[{"loss": float("nan"), "step": np.int64(3)}])
    path = write_record(tmp_path, record)
    text = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert text["scores"] == {"ndcg@2": 0.25}
    assert text["curve"] == [{"loss": None, "step": 3}]


def test_a_failed_rerun_takes_the_old_lists_with_it(tmp_path: Path) -> None:
    write_record(tmp_path, a_record(), pa.table({"user": [1]}))
    write_record(tmp_path, a_record(status="oom", error={"type": "MemoryError", "message": "", "traceback": ""}))
    assert not ranking_path(tmp_path, "abc").exists()
    assert read_record(record_path(tmp_path, "abc")).status == "oom"


def test_records_are_found_below_a_folder_in_the_suites_order(tmp_path: Path) -> None:
    write_record(tmp_path / "s", a_record("b", method="second", order=1, seed=0))
    write_record(tmp_path / "s", a_record("c", method="first", order=0, seed=1))
    write_record(tmp_path / "s", a_record("a", method="first", order=0, seed=0))
    (tmp_path / "s" / "a.d").mkdir()
    (tmp_path / "s" / "a.d" / "tracker.json").write_text("{}")
    assert [record.digest for record in read_records([tmp_path])] == ["a", "c", "b"]
    assert [record.digest for record in read_records([tmp_path / "s" / "b.json", tmp_path])] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps({"schema": SCHEMA_VERSION + 1}), f"newer grbench .record schema {SCHEMA_VERSION + 1}"),
        ("{", "not a record of grbench"),
        ("[1]", "not a record of grbench"),
        ('{"schema": true}', "not a record of grbench"),
        ("[" * 10_000, "not a record of grbench"),
        ('{"schema": 2, "title": "\\ud800"}', "not a record of grbench"),
        ('{"schema": 1, "digest": "x"}', "suite: is missing; the record is damaged, move it away or delete it"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "0123456789abcdef.json"  # the name of a record, so that it is not taken for something else
    path.write_text(text)
    with pytest.raises(RunError, match=said) as caught:
        read_records([tmp_path])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("status", "fine", r"status: should be 'ok', 'error', .*, got \"fine\""),
        ("seed", "0", r'seed: should be a valid integer, got "0"'),
        ("digest", "../x", r"digest: should match pattern .*, got \"../x\""),
        ("scores", {"ndcg@2": "high"}, r'scores.ndcg@2: should be a valid number, got "high"'),
        ("metrics", {"ndcg@2": 1}, r"metrics.ndcg@2: should be a mapping, got 1"),
        ("pool", {"digest": "p"}, "pool.size: is missing"),
        ("identity", {"training": []}, r"identity.training: should be a mapping, got \[\]"),
        (
            "cost",
            {"phases": {"search": {"batch_size": "8"}}},
            "cost.phases.search.batch_size: should be",
        ),
        ("cost", {"train_seconds": [1]}, "cost.train_seconds: should be a valid number"),
        ("counts", {"ties": {"events": 1, "users": "1"}}, "counts.ties.users: should be a valid integer"),
        ("counts", {"dropped": {"no_positive": None}}, "counts.dropped.no_positive: should be a valid integer"),
        ("environment", {"ram_bytes": "much"}, "environment.ram_bytes: should be a valid number"),
        ("lists", {"scored": "ten" * 100}, r'lists.scored: .*, got "tente.{74}\.\.\. \(302 characters\)'),
        ("error", "oom", "error: should be a mapping"),
        ("curve", {}, "curve: should be a list"),
    ],
)
def test_a_field_of_another_type_is_named(field: str, value: object, said: str) -> None:
    text = json.dumps(json.loads(a_record().to_json()) | {field: value})
    with pytest.raises(RunError, match=f"^x.json: {said}.*; the record is damaged, move it away or delete it$"):
        Record.from_json(text, "x.json")


def test_whole_numbers_stay_whole() -> None:
    record = a_record(
        cost={"phases": {"search": {"batch_size": 512}}, "peak_process_bytes": 2**40, "search_p99_ms": 3.0}
    )
    again = Record.from_json(record.to_json(), "x.json")
    assert json.dumps(again.cost, sort_keys=True) == json.dumps(record.cost, sort_keys=True)


def test_other_json_files_in_a_folder_are_left_out_and_named(tmp_path: Path) -> None:
    write_record(tmp_path, a_record())
    (tmp_path / "notes.json").write_text('{"schema": "of something else"}')
    (tmp_path / "cut.json").write_text("{")
    notes: list[str] = []
    assert read_records([tmp_path], notes.append) == [a_record()]
    assert notes == [
        f"left out, because not a record of grbench: {tmp_path / 'cut.json'}, {tmp_path / 'notes.json'}",
    ]
    with pytest.warns(UserWarning, match="left out, because not a record"):
        read_records([tmp_path])
    with pytest.raises(RunError, match="not a record of grbench"):
        read_records([tmp_path / "notes.json"])  # it was asked for


def test_a_record_whose_lists_are_gone_is_not_done(tmp_path: Path) -> None:
    path = write_record(tmp_path, a_record(), pa.table({"user": [1]}))
    assert read_record(path).done
    ranking_path(tmp_path, "abc").unlink()
    record = read_record(path)
    assert (record.status, record.lists_gone, record.done) == ("ok", True, False)
    assert "lists_gone" not in record.to_json()
    failed = a_record("f", status="error", error={"type": "E", "message": "", "traceback": ""})
    assert not read_record(write_record(tmp_path, failed)).lists_gone  # it never had any


def test_a_missing_results_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file or folder"):
        read_records([tmp_path / "nothing"])


def test_an_entry_that_this_schema_lacks_is_passed_over() -> None:
    record = a_record()
    values = json.loads(record.to_json()) | {"remark": "from a plug-in"}
    del values["checksum"]
    again = Record.from_json(json.dumps(values | {"checksum": content_checksum(values)}), "x.json")
    assert again == record
    assert Record.from_json(json.dumps(values | {"schema": 2}), "x.json") == record  # before there were checksums


def test_a_full_disk_leaves_the_old_record_and_nothing_half_written(tmp_path: Path) -> None:
    write_record(tmp_path, a_record(seed=0))
    # A limit on file size meets the write as a full disk does, and needs no second file system.
    script = f"""
import dataclasses, pathlib, resource, signal, sys
from grbench.errors import RunError
from grbench.results.record import Record
from grbench.results.record_files import read_record, write_record
folder = pathlib.Path({str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
record = read_record(folder / "abc.json")
try:
    write_record(folder, dataclasses.replace(record, curve=[{{"loss": 1.0}}] * 1000))
except RunError as error:
    print(error)
    sys.exit(2)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "no space left" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["abc.json"]
    assert read_record(tmp_path / "abc.json") == a_record(seed=0)


def test_a_record_of_version_1_is_read_and_its_identity_is_an_older_one(tmp_path: Path) -> None:
    (path,) = (Path(__file__).parent / "version_1").glob("*.json")
    record = read_record(path)
    assert (record.method, record.status) == ("most_popular", "ok")
    assert record.scores["hit_rate@10"] == 0.06593406593406594
    assert (record.training_digest, record.lists_digest, record.lists, record.rescored_from) == ("", "", {}, None)
    assert record.older_identity
    assert record.list_length == 0
    # written again it is one of today's schema, and no less an older identity
    again = read_record(write_record(tmp_path, record))
    assert json.loads((tmp_path / path.name).read_text())["schema"] == SCHEMA_VERSION == 3
    assert again == record


def test_an_identity_of_today_is_not_an_older_one() -> None:
    assert not a_record(identity={"training": {}, "ranking": {}, "metrics": []}).older_identity
    assert not a_record().older_identity  # nothing is known of it


def test_the_latest_record_of_a_cell_is_kept_whatever_it_was_scored_by() -> None:
    first = a_record("a", lists_digest="l", finished="2026-01-01")
    rescored = a_record("b", lists_digest="l", finished="2026-01-02")
    other, older = a_record("c", lists_digest="m"), a_record("d")
    assert latest([rescored, first, other, older, older]) == [rescored, other, older]


def test_a_failed_record_does_not_replace_a_successful_one() -> None:
    ok = a_record("a", lists_digest="l", finished="2026-01-01")
    failed = a_record("b", lists_digest="l", finished="2026-01-02", status="error")
    again = a_record("c", lists_digest="l", finished="2026-01-03", status="killed")
    assert latest([ok, failed]) == latest([failed, ok]) == [ok]
    assert latest([again, failed]) == [again]


def test_every_field_is_described() -> None:
    described = Record.__doc__ or ""
    assert [entry.name for entry in dataclasses.fields(Record) if entry.name not in described] == []
