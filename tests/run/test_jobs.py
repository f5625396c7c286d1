"""Several cells at once: the results of one after another, and nothing lost where one fails or all are stopped."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_suite import run, suite_of

from grbench.cli import main
from grbench.errors import RunError
from grbench.results.claims import claims_in
from grbench.results.record import Record
from grbench.results.record_files import read_records
from grbench.run import attendant

TRAINED = "{encoder: {name: causal_transformer, width: 8}, loss: bce, training: {epochs: 2, batch_size: 4}}"


def lists_of(folder: Path, record: Record) -> dict[str, list[object]]:
    return pq.read_table(folder / "tiny" / f"{record.digest}.parquet").to_pydict()


def test_two_jobs_give_what_one_gives_also_beside_a_cell_that_fails(world: Path) -> None:
    methods = (f"trained: {TRAINED}", "dies: {encoder: killed}", "fine: {encoder: {name: sleeps, seconds: 2}}")
    suite, folders = suite_of(world, *methods, seeds="[0, 1]"), (world / "one", world / "two")
    (one, _), (two, said) = (run(suite, results=folder, jobs=jobs) for jobs, folder in enumerate(folders, 1))
    assert (one.code, two.code) == (1, 1)
    assert [record.status for record in two.records] == ["ok", "killed", "ok"] * 2
    for first, second in zip(one.records, two.records, strict=True):
        assert (first.digest, first.status, first.scores) == (second.digest, second.status, second.scores)
        assert [row["loss"] for row in first.curve] == [row["loss"] for row in second.curve]
        if first.status == "ok":
            assert lists_of(folders[0], first) == lists_of(folders[1], second)
            assert first.environment["torch_threads"] == second.environment["torch_threads"] == 1
    assert {record.cost["beside"]["cells"] for record in one.records} == {0}
    assert max(record.cost["beside"]["cells"] for record in two.records) == 1
    assert set(re.findall(r"^\[[0-9]/6\] \w+, seed [01] \((job [0-9])\): ", said, re.MULTILINE)) == {"job 1", "job 2"}
    assert claims_in(folders[1] / "tiny") == {}


def test_ctrl_c_stops_all_cells_that_run_and_keeps_what_is_finished(world: Path) -> None:
    suite = suite_of(world, "fine: {encoder: fine}", "sleeps: {encoder: {name: sleeps, seconds: 600}}", seeds="[0, 1]")
    # A shell's background job ignores Ctrl-C; this process must not, whoever started the tests.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from grbench.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "run", str(suite), "--device", "cpu", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    folder = world / "results" / "tiny"
    deadline = time.monotonic() + 240
    while len(list(folder.glob("*.log"))) < 4 or len(list(folder.glob("*.json"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Interrupted: 2 of 4 cells are finished and kept in" in said
    assert "Traceback" not in said
    assert claims_in(folder) == {}
    found = [(record.method, record.seed, record.status) for record in read_records([folder])]
    assert sorted(found) == [
        ("fine", 0, "ok"),
        ("fine", 1, "ok"),
        ("sleeps", 0, "interrupted"),
        ("sleeps", 1, "interrupted"),
    ]


def test_a_result_that_cannot_be_kept_stops_the_cells_beside_it_which_say_so(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = suite_of(world, "sleeps: {encoder: {name: sleeps, seconds: 600}}", "fine: {encoder: fine}")
    whole_cost = attendant.with_whole_cost

    def full_disk(folder: Path, record: Record, *others: Any) -> Record:
        if record.method == "fine":
            raise RunError("fine.json: cannot be written (No space left on device)")
        return whole_cost(folder, record, *others)

    monkeypatch.setattr(attendant, "with_whole_cost", full_disk)
    with pytest.raises(RunError, match="No space left"):
        run(suite, results=world / "results", jobs=2)
    (stopped,) = [each for each in read_records([world / "results" / "tiny"]) if each.method == "sleeps"]
    assert stopped.status == "interrupted"
    assert stopped.error is not None
    said = "stopped with the run: fine.json: cannot be written (No space left on device)"
    assert stopped.error["message"] == said


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_jobs_that_cannot_be_are_refused(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", "--jobs", jobs]) == 2
    assert "--jobs" in capsys.readouterr().err
