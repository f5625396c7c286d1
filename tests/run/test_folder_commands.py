"""The commands that look after a folder of results, on one that was made by a run."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_suite import run, suite_of

from grbench.cli import main
from grbench.results.record import Record
from grbench.results.record_files import read_records, write_record
from grbench.results.values import with_values
from grbench.run.rerun import SuiteCells


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    suite = suite_of(place, "fine: {encoder: fine}", "popular: {encoder: most_popular}", seeds="[0, 1]")
    run(suite, results=place / "results")
    return place / "results"


@pytest.fixture
def results(world: Path, finished: Path) -> Path:
    """A working folder's results of two methods and two seeds; suite.yaml beside them is that suite."""
    suite_of(world, "fine: {encoder: fine}", "popular: {encoder: most_popular}", seeds="[0, 1]")
    return shutil.copytree(finished, world / "results")


def records(results: Path) -> list[Record]:
    return read_records([results])


def test_what_a_run_wrote_is_verified(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(results), "--suite", "suite.yaml"]) == 0
    said = capsys.readouterr().out
    assert "4 records checked: all are right" in said
    assert said.count(" ok ") >= 4 * 6  # the status, four checks, and the metrics computed from the lists
    assert "metrics" in said


def test_scores_that_the_lists_do_not_give_are_found_with_the_suite(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = records(results)[0]
    path = results / "tiny" / f"{record.digest}.parquet"
    table = pq.read_table(path)
    values = table["metric:hit_rate@2"].to_numpy().copy()
    values[:2] = values[1], values[0]  # the mean stays
    values[:] = values[::-1]
    write_record(results / "tiny", record, with_values(table, {"hit_rate@2": values}))
    assert main(["verify", str(results)]) == 0  # in itself it is right
    assert main(["verify", str(results), "--suite", "suite.yaml"]) == 1
    assert "hit_rate@2: the metric gives other values for these lists" in capsys.readouterr().out


def test_cells_are_run_again_and_compared(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last digit, but where the environment differs, within the tolerance."""
    found = {(record.method, record.seed): record for record in records(results)}
    for cell, torch in ((("popular", 0), {}), (("fine", 1), {"torch": "1.0"})):
        record = found[cell]
        lists = pq.read_table(results / "tiny" / f"{record.digest}.parquet")
        values = lists["metric:hit_rate@2"].to_numpy() + 1e-9
        changed = replace(record, scores={"hit_rate@2": float(values.mean())}, environment=record.environment | torch)
        write_record(results / "tiny", changed, with_values(lists, {"hit_rate@2": values}))
    monkeypatch.setattr(SuiteCells, "prepare", lambda cells: "not looked at")  # it would be seen in the lists
    before = sorted((path, path.read_bytes()) for path in results.rglob("*.json"))
    assert main(["verify", str(results), "--suite", "suite.yaml", "--rerun", "4"]) == 1
    said = capsys.readouterr().out
    assert "4 records checked: 1 is not right" in said
    assert said.count(", run again ") == 1
    assert f"{found['popular', 0].digest}.json: hit_rate@2: is " in said
    assert sorted((path, path.read_bytes()) for path in results.rglob("*.json")) == before


def test_requests_that_cannot_be_met(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "absent"]) == 2
    assert main(["verify", str(results), "--rerun", "1"]) == 2  # tiny is no installed suite
    assert "no such suite" in capsys.readouterr().err
    (results / "empty").mkdir()
    assert main(["verify", str(results / "empty")]) == 2
    assert main(["merge", "absent", "--out", "out"]) == 2


def test_an_edited_record_is_named_by_table_and_verify(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results / "tiny" / f"{records(results)[0].digest}.json"
    values = json.loads(path.read_text())
    values["scores"]["hit_rate@2"] = 0.99
    path.write_text(json.dumps(values))
    assert main(["table", str(results)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{path}: the record was altered after it was written" in err
    assert main(["verify", str(results)]) == 1
    assert "4 records checked: 1 is not right" in capsys.readouterr().out


def test_status_counts_and_runs_nothing(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "tiny" / f"{records(results)[0].digest}.json").unlink()
    before = sorted(results.rglob("*"))
    assert main(["status", "suite.yaml"]) == 0
    said = capsys.readouterr().out
    assert "tiny: 4 cells: 3 done, 0 running, 0 failed, 1 to do" in said
    assert "Left: about" in said
    assert sorted(results.rglob("*")) == before


def test_prune_asks_and_removes_what_the_suite_lacks(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite_of(results.parent, "popular: {encoder: most_popular}", seeds="[0]")
    kept = {record.digest for record in records(results) if (record.method, record.seed) == ("popular", 0)}
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["prune", "suite.yaml"]) == 2
    out, err = capsys.readouterr()
    assert "3 cells in results/tiny that tiny no longer has" in out
    assert "there is no terminal to ask at" in err
    assert len(records(results)) == 4
    assert main(["prune", "suite.yaml", "--yes"]) == 0
    assert {record.digest for record in records(results)} == kept
    assert {path.name[:16] for path in (results / "tiny").iterdir()} == kept
    assert main(["prune", "suite.yaml", "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_prune_keeps_lists_that_are_to_be_scored_again(results: Path) -> None:
    suite = results.parent / "suite.yaml"
    suite.write_text(suite.read_text().replace("[hit_rate@2]", "[hit_rate@2, ndcg@2]"))
    assert main(["prune", "suite.yaml", "--yes"]) == 0
    assert len(records(results)) == 4


def test_merged_results_make_the_same_table(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for at, record in enumerate(records(results)):
        part = results.parent / f"part{at % 2}"
        part.mkdir(exist_ok=True)
        for path in (results / "tiny").glob(f"{record.digest}.*"):
            shutil.copy(path, part)
    assert main(["merge", "part0", "part1", "--out", "whole"]) == 0
    assert "whole: 4 cells copied (tiny), 0 there already" in capsys.readouterr().out
    assert main(["table", "whole", "--format", "csv"]) == 0
    merged = capsys.readouterr().out
    assert main(["table", str(results), "--format", "csv"]) == 0
    assert capsys.readouterr().out == merged
