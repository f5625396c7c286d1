"""A process that is killed while it replaces a record and its lists leaves one pair or the other, never a mixture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from grbench.results.integrity import intact_records
from grbench.results.lists import read_lists
from grbench.results.record import Record
from grbench.results.record_files import finish_write, ranking_path, read_record, record_path, write_record
from grbench.temporary import remove_leftovers

KILLED = """
import os, pathlib, signal, sys
import pyarrow as pa
from grbench.results.record import Record
from grbench.results.record_files import write_record
folder, at = pathlib.Path(sys.argv[1]), int(sys.argv[2])
replace, calls = pathlib.Path.replace, []
def killed(path, target):
    calls.append(path)
    if len(calls) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)
pathlib.Path.replace = killed
record = Record("abc", "tiny", "m", 0, "ok", scores={"hit_rate@2": 0.75})
write_record(folder, record, pa.table({"user": [1, 2, 3]}))
"""


def pair(folder: Path) -> tuple[float | None, int]:
    (record,) = intact_records([folder])
    return record.scores["hit_rate@2"], read_lists(ranking_path(folder, "abc")).num_rows


@pytest.mark.parametrize(("at", "found"), [(1, (0.25, 1)), (2, (0.25, 1)), (3, (0.75, 3))])
def test_a_kill_before_each_step(tmp_path: Path, at: int, found: tuple[float, int]) -> None:
    first = Record("abc", "tiny", "m", 0, "ok", scores={"hit_rate@2": 0.25})
    write_record(tmp_path, first, pa.table({"user": [1]}))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(at)], check=False)
    assert killed.returncode == -9
    assert pair(tmp_path) == found
    finish_write(tmp_path, "abc")
    remove_leftovers(tmp_path)
    assert pair(tmp_path) == found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abc.json", "abc.parquet"]


def test_a_new_cell_whose_last_step_is_missing_is_finished(tmp_path: Path) -> None:
    path = write_record(tmp_path, Record("abc", "tiny", "m", 0, "ok", scores={"m": 0.5}), pa.table({"user": [1]}))
    path.rename(tmp_path / "abc.next")
    finish_write(tmp_path, "abc")
    assert read_record(record_path(tmp_path, "abc")).done


def test_a_failure_that_is_written_later_is_not_hidden_by_an_unfinished_result(tmp_path: Path) -> None:
    path = write_record(tmp_path, Record("abc", "tiny", "m", 0, "ok"), pa.table({"user": [1]}))
    (tmp_path / "abc.next").write_bytes(path.read_bytes())
    write_record(tmp_path, Record("abc", "tiny", "m", 0, "oom"))
    assert read_record(path).status == "oom"
    assert [entry.name for entry in tmp_path.iterdir()] == ["abc.json"]
