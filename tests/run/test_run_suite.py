"""Suites run to their end whatever their cells do: every way to fail is one row, and nothing finished is lost."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_suite import run, suite_of

from grbench.report.table import tables
from grbench.results.checksums import AlteredError
from grbench.results.claims import claims_in
from grbench.results.record_files import latest, read_records
from grbench.run import run_suite as runner
from grbench.run.backends import local
from grbench.run.backends.child_process import End, ForkServer, run_child
from grbench.run.preparation import Ready
from grbench.run.run_suite import Outcome

READY = Ready({"store": "", "place": "", "device": "cpu"}, [], {})
"""What preparing gives where the cell's child does nothing."""


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    """The results of a suite of one cell that is fine and one that is not, run once."""
    suite = suite_of(place, "fine: {encoder: fine}", "raises: {encoder: raises}")
    run(suite, results=place / "results")
    return place / "results"


@pytest.fixture
def finished_world(world: Path, finished: Path) -> Path:
    """A working folder with those results."""
    shutil.copytree(finished, world / "results")
    return world


def test_each_failure_is_a_record_with_its_reason_and_the_rest_go_on(world: Path) -> None:
    suite = suite_of(
        world,
        "raises: {encoder: raises}",
        "too_large: {encoder: toolarge}",
        "killed: {encoder: killed}",
        "crashed: {encoder: {name: killed, by: 11}}",
        "absent: {encoder: absent}",
        "fine: {encoder: {name: fine, chatter: '{not json'}}",
        "other_name: {encoder: {name: fine, chatter: '{not json'}}",
    )
    outcome, said = run(suite)
    assert outcome.code == 1
    found = {record.method: record for record in outcome.records}
    assert {name: record.status for name, record in found.items()} == {
        "raises": "error",
        "too_large": "oom",
        "killed": "killed",
        "crashed": "error",
        "absent": "error",
        "fine": "ok",
        "other_name": "ok",
    }
    errors = {name: record.error or {} for name, record in found.items()}
    assert errors["raises"]["message"] == "ValueError: deliberate"
    assert 'raise ValueError("deliberate")' in errors["raises"]["traceback"]
    assert errors["killed"]["message"] == "killed by signal 9 (SIGKILL)"
    assert errors["crashed"]["message"] == "killed by signal 11 (SIGSEGV)"
    assert "Segmentation fault" in errors["crashed"]["traceback"]
    assert "a_module_that_is_not_there" in errors["absent"]["message"]
    # what a plug-in prints is in the log, and did not get into what the child says to its parent
    log = (world / "results" / "tiny" / f"{found['fine'].digest}.log").read_text()
    assert "{not json" in log
    assert "noise from below" in log
    # each outcome is on disk; two names of one experiment are one outcome, which has both
    assert len(read_records([world / "results"])) == len(outcome.records) - 1
    assert latest(read_records([world / "results"])) == outcome.records
    assert dataclasses.replace(found["fine"], method="other_name", order=6) == found["other_name"]
    assert [line for line in said.splitlines() if line.startswith("[6/7] fine, seed 0: ok, HR@2 ")]
    assert "other_name, seed 0: the same experiment as fine, seed 0; run once" in said
    assert "\x1b" not in said
    assert "\r" not in said


def test_a_cell_that_the_kernel_killed_for_memory_is_out_of_memory(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = itertools.count()
    monkeypatch.setattr("grbench.run.backends.child_process.oom_kills", lambda: next(counts))  # one more each time
    outcome, _ = run(suite_of(world, "killed: {encoder: killed}"))
    (record,) = outcome.records
    assert record.status == "oom"
    assert (record.error or {})["message"] == "killed by the kernel, because memory ran out"


def test_plug_ins_that_cannot_be_imported_once_for_all_cells_are_noted(
    place: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "packages" / "ends.py").write_text("import os; os._exit(7)\n")
    monkeypatch.setattr(runner, "_modules", lambda *_: ["ends"])
    outcome, said = run(suite_of(world, "fine: {encoder: fine}"))
    assert outcome.code == 0
    reason = "the fork server ended with exit status 7"
    assert [line for line in said.splitlines() if line.startswith("note: ")] == [
        f"note: every cell imports its plug-ins anew, which takes longer, because {reason}"
    ]


def test_scores_counts_costs_and_lists_of_a_cell(finished: Path) -> None:
    record, _ = read_records([finished])
    # Training events are each user's first two: items 0, 1 | 1, 2 | 2, 3 | 3, 0 | 0, 1 | 1, 2, so 3 times 0, 4 times 1,
    # 3 times 2, 2 times 3. Targets are each user's fourth: 3, 0, 1, 2, 3, 0. Lists of two: 1 leads, and 0 and 2 tie
    # behind it, so a tie reaches across the end and only item 1 counts as found: one user of six.
    assert record.scores == {"hit_rate@2": pytest.approx(1 / 6)}
    assert record.counts["evaluated"] == 6
    assert record.counts["dropped"] == {"too_few_events": 0, "out_of_pool": 0}
    assert record.counts["parameters"] == 0
    assert record.pool is not None
    assert record.pool["size"] == 4
    assert set(record.cost["phases"]) == {"prepare", "fit_tokenizer", "index", "search"}
    assert record.cost["search_queries_per_second"] > 0
    assert record.cost["train_seconds"] is None
    in_phases = sum(phase["seconds"] for phase in record.cost["phases"].values())
    assert record.cost["total_seconds"] == pytest.approx(in_phases + record.cost["overhead_seconds"])
    assert 0 < record.cost["overhead_seconds"] < 600
    assert record.environment["device"] == "cpu"
    lists = pq.read_table(finished / "tiny" / f"{record.digest}.parquet").to_pylist()
    assert [row["user"] for row in lists] == [f"u{user}" for user in range(6)]
    assert [row["targets"] for row in lists] == [["i3"], ["i0"], ["i1"], ["i2"], ["i3"], ["i0"]]
    assert [row["ranks"] for row in lists] == [[0], [0], [1], [0], [0], [0]]
    assert all(row["items"][0] == "i1" for row in lists)


def test_a_cell_whose_lists_are_gone_is_run_again(finished_world: Path) -> None:
    suite = suite_of(finished_world, "fine: {encoder: fine}")
    folder = finished_world / "results" / "tiny"
    before = next(record for record in read_records([folder]) if record.method == "fine")
    lists = folder / f"{before.digest}.parquet"
    lists.unlink()
    with pytest.raises(AlteredError, match=f"{lists.name}: the lists are gone"):
        tables(read_records([folder]))
    (folder / "notes.json").write_text("[]")
    _, said = run(suite, dry_run=True)
    assert "to do again (its lists are gone)" in said
    assert "note: left out, because not a record of grbench: results/tiny/notes.json\n" in said
    assert f"note: results/tiny/{lists.name}: the lists are gone\n" in said
    outcome, _ = run(suite)
    assert [record.done for record in outcome.records] == [True]
    assert lists.is_file()


def test_what_was_altered_is_said_and_run_again(finished_world: Path) -> None:
    suite = suite_of(finished_world, "fine: {encoder: fine}", "raises: {encoder: raises}")
    folder = finished_world / "results" / "tiny"
    before = {record.method: record for record in read_records([folder])}
    (lists,) = folder.glob("*.parquet")
    lists.write_bytes(lists.read_bytes()[:-1] + b"!")
    path = folder / f"{before['raises'].digest}.json"
    path.write_text(path.read_text().replace('"status": "error"', '"status": "ok"'))
    _, said = run(suite, dry_run=True)
    assert "to do again (its lists were altered)" in said
    assert "to do again (its record was altered)" in said
    assert f"note: results/tiny/{path.name}: the record was altered" in said
    outcome, _ = run(suite)
    assert [record.status for record in outcome.records] == ["ok", "error"]
    (fine, _) = outcome.records
    assert (fine.done, fine.scores) == (True, before["fine"].scores)
    assert fine.cost["beside"]["cells"] == 0


def test_finished_cells_are_not_run_twice_failed_ones_are(finished_world: Path) -> None:
    suite = suite_of(finished_world, "fine: {encoder: fine}", "raises: {encoder: raises}")
    (before, _) = read_records([finished_world / "results"])
    _, said = run(suite, dry_run=True)
    assert "1 done, 1 to do" in said
    assert "to do again (was error)" in said
    kept, said = run(suite, only=["fine"])
    assert "1 done, 0 to do" in said
    assert kept == Outcome([before], 0)
    forced, said = run(suite, force=True, only=["fine"])
    assert "to do again (forced)" in said
    assert "about" in said  # as long as it took before
    assert forced.records[0].digest == before.digest
    assert forced.records[0].scores == before.scores
    assert forced.records[0].cost != before.cost


def test_a_dry_run_only_plans(world: Path) -> None:
    outcome, said = run(suite_of(world, "fine: {encoder: fine}", seeds="[3, 4]"), dry_run=True)
    assert outcome == Outcome([], 0)
    assert "1 method x 2 seeds = 2 cells: 0 done, 2 to do" in said
    assert not (world / "results").exists()
    assert not (world / "cache").exists()


def test_two_runs_may_use_one_folder(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, others = suite_of(world, "fine: {encoder: fine}", "raises: {encoder: raises}"), ["raises"]

    def child(server: ForkServer, module: str, job: Any, **options: Any) -> End:
        end = run_child(server, module, job, **options)
        while others:  # once: another run from its beginning to its end
            run(suite, only=[others.pop()])
        return end

    monkeypatch.setattr(local, "run_child", child)
    outcome, _ = run(suite, only=["fine"])
    assert [record.status for record in outcome.records] == ["ok"]
    assert sorted(record.status for record in read_records([world / "results"])) == ["error", "ok"]
    assert not list((world / "results").rglob("preparation*"))


def test_more_workers_than_cores_are_noted(world: Path) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    method = "{encoder: {name: causal_transformer, width: 8}, loss: bce, training: {workers: %d}}"
    _, said = run(suite_of(world, "few: " + method % 1, "many: " + method % (cores + 1)), dry_run=True)
    assert re.findall("note: .*", said) == [
        f"note: methods.many.training.workers: {cores + 1} threads on {cores} cores only wait for each other; 1 or 2 "
        "keep up with any training step"
    ]


def test_a_cell_that_takes_too_long_is_stopped(world: Path) -> None:
    began = time.monotonic()
    outcome, _ = run(suite_of(world, "sleeps: {encoder: {name: sleeps, seconds: 600}}"), timeout=8)
    assert [record.status for record in outcome.records] == ["timeout"]
    assert (outcome.records[0].error or {})["message"] == "stopped after 8 s (--timeout)"
    assert time.monotonic() - began < 300


def test_an_interrupted_suite_keeps_what_is_finished_and_goes_on(world: Path) -> None:
    suite = suite_of(world, "fine: {encoder: fine}", "sleeps: {encoder: {name: sleeps, seconds: 600}}")
    # A shell's background job ignores Ctrl-C; this process must not, whoever started the tests.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from grbench.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "run", str(suite), "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    folder = world / "results" / "tiny"
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.log"))) < 2 or not list(folder.glob("*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Interrupted: 1 of 2 cells are finished and kept in" in said
    assert "Traceback" not in said
    assert claims_in(folder) == {}
    assert {record.method: record.status for record in read_records([folder])} == {
        "fine": "ok",
        "sleeps": "interrupted",
    }
    command = [sys.executable, "-m", "grbench", "run", str(suite), "--dry-run"]
    planned = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "1 done, 1 to do" in planned
    assert "was interrupted" in planned


def test_an_interrupted_forced_run_leaves_the_former_result(
    finished_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = suite_of(finished_world, "fine: {encoder: fine}")
    before = read_records([finished_world / "results"])

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    from grbench.run import run_suite as runner

    monkeypatch.setattr(runner, "prepare", lambda *arguments: READY)
    monkeypatch.setattr(local, "run_child", interrupted)
    outcome, said = run(suite, force=True)
    assert outcome.code == 130
    assert "1 of 1 cells are finished" in said
    assert read_records([finished_world / "results"]) == before


@pytest.mark.parametrize("heard", [True, False])
def test_an_interrupt_after_the_last_word_of_a_cell_leaves_its_result(
    finished_world: Path, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    (finished,) = (record for record in read_records([finished_world / "results"]) if record.method == "fine")
    (lists,) = (finished_world / "results").rglob("*.parquet")
    path = lists.with_suffix(".json")
    kept, rows = path.read_text(), lists.read_bytes()
    path.unlink()  # as before its first run
    lists.unlink()

    def interrupted(*arguments: object, listen: Any, **options: object) -> None:
        lists.write_bytes(rows)
        path.write_text(kept)
        if heard:
            listen({"event": "recorded"})
        raise KeyboardInterrupt

    from grbench.run import run_suite as runner

    monkeypatch.setattr(runner, "prepare", lambda *arguments: READY)
    monkeypatch.setattr(local, "run_child", interrupted)
    outcome, said = run(suite_of(finished_world, "fine: {encoder: fine}"))
    assert outcome.code == 130
    assert "1 of 1 cells are finished" in said
    assert finished in read_records([finished_world / "results"])
    assert lists.read_bytes() == rows


def test_an_interrupted_cell_keeps_its_curve_so_far(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, listen: Any, **options: object) -> None:
        listen({"event": "curve", "first": 0, "rows": [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 9.0}]})
        listen({"event": "curve", "first": 1, "rows": [{"epoch": 2, "loss": 2.0}]})
        listen({"event": "note", "text": "going on from epoch 2, step 5"})
        raise KeyboardInterrupt

    from grbench.run import run_suite as runner

    monkeypatch.setattr(runner, "prepare", lambda *arguments: READY)
    monkeypatch.setattr(local, "run_child", interrupted)
    outcome, said = run(suite_of(world, "fine: {encoder: fine}"))
    assert outcome.code == 130
    (record,) = read_records([world / "results"])
    assert record.status == "interrupted"
    assert record.curve == [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0}]
    assert "fine, seed 0: going on from epoch 2, step 5\n" in said


def test_a_record_of_another_name_gets_this_suites(finished_world: Path) -> None:
    """The table of the run, and those that are made of the folder, agree."""
    renamed, said = run(suite_of(finished_world, "new_name: {encoder: fine}"))
    assert "1 done, 0 to do" in said
    assert [record.method for record in renamed.records] == ["new_name"]
    assert [record.method for record in read_records([finished_world / "results"])] == ["new_name", "raises"]
