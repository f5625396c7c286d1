"""Folders of results joined into one: nothing is lost, overwritten by worse, or taken without its lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from grbench.errors import RunError
from grbench.results.checksums import AlteredError
from grbench.results.claims import Claim, claim
from grbench.results.integrity import intact_records
from grbench.results.merge import copy_cell, plan_merge
from grbench.results.merge_searches import copy_searches
from grbench.results.places import at_each_place
from grbench.results.record import Record
from grbench.results.record_files import ranking_path, read_record, read_records, record_path, write_record
from grbench.tuning.search import STUDIES

A, B = "a" * 16, "b" * 16


def put(folder: Path, digest: str, score: float | None, finished: str = "2026-01-01", **values: Any) -> Path:
    done = score is not None
    record = Record(digest, "tiny", f"m{digest[0]}", 0, "ok" if done else "error", finished=finished, **values)
    lists = pa.table({"user": np.arange(3)}) if done else None
    return write_record(folder, replace(record, scores={"hit_rate@10": score} if done else {}), lists)


def merge(*sources: Path, out: Path, newest: bool = False) -> tuple[int, int]:
    copies, stay = plan_merge(sources, out, newest=newest, note=lambda text: None)
    for copy in copies:
        copy_cell(copy)
    return len(copies), stay


def test_each_cell_comes_with_all_that_lies_beside_it(tmp_path: Path) -> None:
    one, two, out = tmp_path / "one" / "tiny", tmp_path / "two", tmp_path / "out"
    put(one, A, 0.5, files={f"{A}.weights.safetensors": "0" * 64})
    put(two, B, None)
    (one / f"{A}.log").write_text("said")
    (one / f"{A}.d" / "csv").mkdir(parents=True)
    (one / f"{A}.d" / "csv" / "steps.json").write_text("[]")
    (one / f"{A}.d" / "outside").symlink_to("/etc")
    (one / f"{A}.weights.safetensors").write_bytes(b"w")
    (one / "other.log").touch()
    assert merge(tmp_path / "one", two, out=out) == (2, 0)
    folder = out / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == [
        *[f"{A}.d", f"{A}.json", f"{A}.log", f"{A}.parquet", f"{A}.weights.safetensors"],
        f"{B}.json",
    ]
    assert [path.name for path in (folder / f"{A}.d").iterdir()] == ["csv"]
    assert [record.status for record in intact_records([out])] == ["ok", "error"]
    for name in (f"{A}.json", f"{A}.parquet"):
        assert (folder / name).read_bytes() == (one / name).read_bytes()
    assert merge(tmp_path / "one", two, out=out) == (0, 2)


def test_a_cell_keeps_the_names_that_it_has_in_any_folder(tmp_path: Path) -> None:
    """One machine ran it as a method, another one as a row of a grid."""
    row = {"name": "wider", "points": 2, "ablation": False}
    put(tmp_path / "one" / "tiny", A, 0.5, finished="2026-01-02")
    path = put(tmp_path / "two" / "tiny", A, 0.5)
    found = read_record(path)
    write_record(path.parent, replace(found, method="wider[width=8]", order=1, grid=row), pa.table({"user": [0, 1, 2]}))
    out = tmp_path / "out"
    assert merge(tmp_path / "one", out=out) == (1, 0)
    for _ in range(2):  # from now on it is there
        merge(tmp_path / "one", tmp_path / "two", out=out)
        (record,) = intact_records([out])
        assert [(each.method, each.grid) for each in at_each_place(record)] == [("ma", None), ("wider[width=8]", row)]
    assert merge(tmp_path / "one", tmp_path / "two", out=out) == (0, 1)


def test_searches_of_one_folder_are_copied_and_of_several_are_not(tmp_path: Path) -> None:
    def searches(name: str, content: str) -> Path:
        path = tmp_path / name / "tiny" / "trials" / STUDIES
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    notes: list[str] = []
    first, out = searches("one", "1\n"), tmp_path / "out"
    copy_searches([tmp_path / "one", tmp_path / "nothing"], out, notes.append)
    target = out / "tiny" / "trials" / STUDIES
    assert (target.read_text(), notes) == ("1\n", [])
    copy_searches([out], out, notes.append)
    assert (target.read_text(), notes) == ("1\n", [])
    second = searches("two", "2\n")
    copy_searches([tmp_path / "one", tmp_path / "two"], out, notes.append)
    assert target.read_text() == "1\n"
    assert notes[0].startswith(f"tiny: the searches of 3 folders cannot be joined ({target}, {first}, {second}); ")
    copy_searches([tmp_path / "one", tmp_path / "two"], tmp_path / "new", notes.append)
    assert "none is copied" in notes[1]
    assert not (tmp_path / "new").exists()


def test_trials_are_kept_apart_from_cells(tmp_path: Path) -> None:
    put(tmp_path / "one" / "tiny", A, 0.5)
    trial = {
        "study": "0" * 12,
        "number": 0,
        "values": {},
        "state": "complete",
        "metric": "hit_rate@10",
        "value": 0.5,
        "seconds": 1.0,
    }
    write_record(tmp_path / "one" / "tiny" / "trials", Record(B, "tiny", "mb", 0, "ok", trial=trial))
    out = tmp_path / "out"
    assert merge(tmp_path / "one", out=out) == (2, 0)
    assert merge(tmp_path / "one", out=out) == (0, 2)
    assert record_path(out / "tiny" / "trials", B).is_file()
    assert [record.digest for record in read_records([out])] == [A]
    assert [record.digest for record in read_records([out], trials=True)] == [B]


def test_a_good_record_comes_before_a_newer_failed_one(tmp_path: Path) -> None:
    put(tmp_path / "one", A, 0.5)
    put(tmp_path / "two", A, None, "2026-01-02")
    for sources in (("one", "two"), ("two", "one")):
        out = tmp_path / sources[0] / "out"
        merge(*(tmp_path / source for source in sources), out=out)
        assert read_record(record_path(out / "tiny", A)).done


def test_a_better_record_replaces_the_one_that_is_there(tmp_path: Path) -> None:
    put(tmp_path / "out" / "tiny", A, None, "2026-01-02")
    put(tmp_path / "one", A, 0.5)
    assert merge(tmp_path / "one", out=tmp_path / "out") == (1, 0)
    assert read_record(record_path(tmp_path / "out" / "tiny", A)).done


def test_other_scores_of_a_cell_are_named_and_nothing_is_copied(tmp_path: Path) -> None:
    put(tmp_path / "one", A, 0.5, "2026-01-02")
    put(tmp_path / "one", B, 0.5)
    put(tmp_path / "two", A, 0.25)
    out = tmp_path / "out"
    with pytest.raises(RunError) as raised:
        merge(tmp_path / "one", tmp_path / "two", out=out)
    said = str(raised.value)
    assert f"tiny: ma, seed 0: hit_rate@10 0.5 in {tmp_path / 'one' / f'{A}.json'}; hit_rate@10 0.25 in" in said
    assert "mb" not in said
    assert "--newest" in said
    assert not out.exists()
    merge(tmp_path / "one", tmp_path / "two", out=out, newest=True)
    assert read_record(record_path(out / "tiny", A)).scores == {"hit_rate@10": 0.5}


def test_what_was_altered_is_named_and_nothing_is_copied(tmp_path: Path) -> None:
    path = put(tmp_path / "one", A, 0.5)
    path.write_text(path.read_text().replace("0.5", "0.99"))
    put(tmp_path / "one", B, 0.5)
    ranking_path(tmp_path / "one", B).write_bytes(b"")
    with pytest.raises(AlteredError, match=rf"{A}\.json.*\n.*{B}\.parquet"):
        merge(tmp_path / "one", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cell_that_runs_there_is_not_replaced(tmp_path: Path) -> None:
    put(tmp_path / "one", A, 0.5)
    (tmp_path / "out" / "tiny").mkdir(parents=True)
    got = claim(tmp_path / "out" / "tiny", A)
    assert isinstance(got, Claim)
    with got, pytest.raises(RunError, match=rf"{A}\.json: process [0-9]+ on .* is running this cell"):
        merge(tmp_path / "one", out=tmp_path / "out")


@pytest.mark.parametrize("suite", ["../elsewhere", "", "a/b", ".."])
def test_a_record_names_no_folder_elsewhere(tmp_path: Path, suite: str) -> None:
    write_record(tmp_path / "one", Record(A, suite, "m", 0, "ok"))
    with pytest.raises(RunError, match=r"suite: .* cannot name a folder"):
        merge(tmp_path / "one", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_record_of_an_earlier_grbench_stays_as_it_is(tmp_path: Path) -> None:
    path = put(tmp_path / "one", A, 0.5)
    values = json.loads(path.read_text()) | {"schema": 2, "extra": 1}
    del values["checksum"], values["files"]
    path.write_text(json.dumps(values))
    merge(tmp_path / "one", out=tmp_path / "out")
    assert (tmp_path / "out" / "tiny" / path.name).read_text() == json.dumps(values)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"absent: no such folder of results"):
        merge(tmp_path / "absent", out=tmp_path / "out")
