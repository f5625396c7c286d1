"""Cells that are killed by SIGKILL, alone or with the run, each at a chosen step, end with the scores and lists of a
run that nothing has happened to, and log each step once. Many kills at random moments: `test_random_kills.py`."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import torch
from tiny_suite import run

from grbench.data.store import STORE_FILE, Store
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.results.record_files import ranking_path, read_records, weights_path
from grbench.run.backends.child_process import ChildMessages
from grbench.run.plan import make_plan
from grbench.run.reporter import Reporter
from grbench.run.run_cell import run_cell
from grbench.run.run_suite import Outcome
from grbench.suite.suite import load_suite

SUPPORT = Path(__file__).parents[1] / "support"
SUITE = """
suite: stopped
dataset: {name: interactions, path: users.json}
protocol: leave_last_out
metrics: [hit_rate@2, ndcg@2]
defaults:
  training: {epochs: 3, batch_size: 8, workers: 0}
  trackers: [{name: jsonl, every_steps: 1}, stops]
methods:
  dense:
    encoder: {name: causal_transformer, width: 8, heads: 2, dropout: 0.2, history_length: 6}
    loss: {name: infonce, negatives: {uniform: 4}}
    training: {validate_every: 1, select: ndcg@2, patience: 2}
  generative:
    tokenizer: {name: rq_kmeans, source: cooccurrence, width: 4, sizes: [3, 4]}
    encoder: {name: sid_decoder, width: 8, heads: 2, dropout: 0.1, history_length: 6}
    loss: next_code
    retriever: {name: beam, width: 4}
  two_stage:
    encoder: {name: causal_transformer, width: 8, heads: 2, dropout: 0.2, history_length: 6, sparse: true}
    loss: full_softmax
    stages:
      - {name: first, training: {epochs: 2}}
      - {name: second, loss: {name: infonce, negatives: {uniform: 4, bank: 16}}, optimizer: {lr: 0.003}}
"""


class Runs(NamedTuple):
    """whole: nothing happened; killed: each cell was stopped once; ended: and run again. said: what runs have printed.
    left: the files of the results' folder at the end."""

    place: Path
    whole: Outcome
    killed: list[Record]
    ended: Outcome
    said: dict[str, str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    place = tmp_path_factory.mktemp("stopped")
    users = {f"u{user}": [f"i{(user * 5 + step * step) % 12}" for step in range(7)] for user in range(24)}
    (place / "users.json").write_text(json.dumps(users))
    (place / "suite.yaml").write_text(SUITE)
    packages = place / "packages"
    metadata = packages / "stopping-0.0.1.dist-info"
    metadata.mkdir(parents=True)
    (packages / "stopping_tracker.py").write_text((SUPPORT / "stopping_tracker.py").read_text())
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stopping\nVersion: 0.0.1\n")
    (metadata / "entry_points.txt").write_text("[grbench]\nstopping = stopping_tracker\n")
    said: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(packages))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("GRBENCH_CACHE", str(place / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(place)
        options: dict[str, Any] = {"checkpoint_minutes": 1e-9, "keep": ["weights"]}
        whole, said["whole"] = run(Path("suite.yaml"), results=Path("whole"), **options)
        patch.setenv("STOP_AT", "dense:4:kill,generative:search:kill,two_stage:8:kill_run")
        command = [sys.executable, "-m", "grbench", "run", "suite.yaml", "--device", "cpu", "--results", "stopped"]
        command += ["--checkpoint-minutes", "1e-9", "--keep", "weights"]
        stopped = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert stopped.returncode == -9, stopped.stdout + stopped.stderr
        killed = read_records([place / "stopped"])
        patch.setenv("STOP_AT", "")
        ended, said["ended"] = run(Path("suite.yaml"), results=Path("stopped"), **options)
        yield Runs(place, whole, killed, ended, said)


def test_each_cell_was_stopped(runs: Runs) -> None:
    statuses = {record.method: record.status for record in runs.killed}
    assert statuses == {"dense": "killed", "generative": "killed"}  # and who writes records was killed with the third
    assert [record.status for record in runs.ended.records] == ["ok"] * 3


def test_the_curve_so_far_is_kept(runs: Runs) -> None:
    by_method = {record.method: record for record in runs.killed}
    assert [row["epoch"] for row in by_method["dense"].curve] == [1]
    assert [row["epoch"] for row in by_method["generative"].curve] == [1, 2, 3]
    assert {"loss", "ndcg@2"} <= set(by_method["dense"].curve[0])


def test_what_the_user_sees(runs: Runs) -> None:
    progress = runs.said["ended"]
    plan = progress.partition("going on")[0]
    assert plan.count("to do again (was killed), goes on from a checkpoint") == 2
    assert plan.count("to do, goes on from a checkpoint") == 1
    assert re.search("dense, seed 0: going on (from epoch 1, step 2|after epoch 1)\n", progress)
    assert re.search("generative, seed 0: going on (from epoch 3, step 2|after epoch 3)\n", progress)
    assert "two_stage, seed 0: going on from stage second, epoch 3, step 1\n" in progress


def test_scores_lists_and_curves_are_the_same_to_the_last_bit(runs: Runs) -> None:
    for whole, ended in zip(runs.whole.records, runs.ended.records, strict=True):
        assert ended.digest == whole.digest
        assert ended.scores == whole.scores
        assert ended.counts == whole.counts
        tables = [pq.read_table(ranking_path(each.folder or Path(), each.digest)) for each in (whole, ended)]
        assert tables[0].equals(tables[1])
        rows = [[{k: v for k, v in row.items() if "second" not in k} for row in r.curve] for r in (whole, ended)]
        assert rows[0] == rows[1]


def test_each_step_is_logged_once(runs: Runs) -> None:
    for record in runs.whole.records:
        paths = [
            runs.place / place / "stopped" / f"{record.digest}.d/jsonl/log.jsonl" for place in ("whole", "stopped")
        ]
        logs = [[json.loads(line) for line in path.open()] for path in paths]
        assert "resume" in [line["event"] for line in logs[1]]
        steps = [
            [(line["step"], line["loss"]) for line in log if line["event"] == "log" and "loss" in line] for log in logs
        ]
        assert steps[0] == steps[1]
        assert [step for step, _ in steps[0]] == list(range(1, record.counts["steps_run"] + 1))


def test_ctrl_c_keeps_the_curve_and_the_place_of_a_training(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second of three epochs, long before the next checkpoint is due."""
    monkeypatch.setenv("STOP_AT", "dense:5:interrupt")
    # A shell's background job ignores Ctrl-C; this process must not, whoever started the tests.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from grbench.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "run", "suite.yaml", "--only", "dense", "--results", "interrupted"]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert stopped.returncode == 130, stopped.stdout + stopped.stderr
    (record,) = read_records([runs.place / "interrupted"])
    assert record.status == "interrupted"
    assert [row["epoch"] for row in record.curve] == [1]
    assert {"loss", "ndcg@2"} <= set(record.curve[0])
    assert set(record.cost["beside"]) == {"cells", "share", "threads"}
    monkeypatch.setenv("STOP_AT", "")
    ended, said = run(Path("suite.yaml"), results=Path("interrupted"), only=["dense"])
    assert "dense, seed 0: going on from epoch 2, step 2\n" in said
    assert ended.records[0].scores == runs.whole.records[0].scores
    assert ended.records[0].cost["lost_seconds"] == 0


def test_costs_are_sums(runs: Runs) -> None:
    dense, generative, two_stage = (record.cost for record in runs.ended.records)
    assert [cost["resumptions"] for cost in (dense, generative, two_stage)] == [1, 1, 1]
    for cost in (dense, generative, two_stage):
        in_phases = sum(phase["seconds"] for phase in cost["phases"].values())
        assert cost["total_seconds"] == pytest.approx(in_phases + cost["overhead_seconds"])
        assert 0 < cost["earlier_seconds"] < cost["total_seconds"]
        assert cost["lost_seconds"] >= 0
    assert [record.cost["resumptions"] for record in runs.whole.records] == [0, 0, 0]


def test_checkpoints_are_gone_and_weights_kept(runs: Runs) -> None:
    for place in ("whole", "stopped"):
        assert not list((runs.place / place).rglob("*.checkpoint"))
    whole, ended = (
        [weights_path(runs.place / place / "stopped", record).stat().st_size for record in records]
        for place, records in (("whole", runs.whole.records), ("stopped", runs.ended.records))
    )
    assert all(size > 1000 for size in whole + ended)
    assert [record.weights["bytes"] for record in runs.whole.records] == whole


def test_another_retriever_is_ranked_from_the_weights(runs: Runs) -> None:
    text = SUITE.replace("{name: beam, width: 4}", "{name: beam, width: 3}").replace("hit_rate@2", "hit_rate@4")
    (runs.place / "suite.yaml").write_text(text)
    again, said = run(Path("suite.yaml"), results=Path("whole"))
    assert "0 done, 3 to re-rank, 0 to do" in said
    suite, registry = load_suite("suite.yaml"), Registry.load()
    planned = make_plan(suite, suite.cells(registry), registry, Path("nothing")).cells
    store = Store.open(next((runs.place / "cache").rglob(STORE_FILE)).parent)
    for whole, ranked, each in zip(runs.whole.records, again.records, planned, strict=True):
        torch.set_flush_denormal(True)  # as a cell's process does
        report = Reporter(ChildMessages(io.StringIO()), [])
        trained, lists = run_cell(each.cell, each.blank, store, registry=registry, device="cpu", report=report)
        torch.set_flush_denormal(False)
        assert ranked.weights_from == whole.digest != ranked.digest == trained.digest
        assert ranked.scores == trained.scores
        assert pq.read_table(ranking_path(ranked.folder or Path(), ranked.digest)).equals(lists)
        assert ranked.counts == trained.counts
        assert ranked.cost["train_seconds"] == whole.cost["train_seconds"]
        assert ranked.cost["phases"]["train"] == whole.cost["phases"]["train"]
        assert ranked.cost["phases"]["search"] != whole.cost["phases"]["search"]
        assert ranked.weights == {}
