"""Cells on two and four processes come to what one process comes to: losses up to the order in which floats are added,
lists and metrics of one model exactly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cells_on_ranks import BLANK, RUNS

from grbench.results.record import Record
from grbench.results.record_files import ranking_path, read_record, record_path

TOLERANCE = 1e-5
"""Relative, of an epoch's mean loss: gradients of two parts of a batch are added up in another order than of one."""
QUICK = [
    *("dense 1", "dense 2", "generative 1", "generative 2", "divided sparse 1", "divided sparse 2"),
    *(
        "ranked dense 2",
        "ranked generative 2",
        "apart 2",
        "begun 2",
        "resumed 1 2",
        "raised 1",
        "killed 1",
        "drifting 2",
    ),
]
AGAIN = ("dense 1", "generative 1", "divided sparse 1", "begun 2")  # quick ones that slow ones are compared with
Runs = Callable[[str], Record]


def run_in(folder: Path, names: list[str], program: str = "cells_on_ranks.py") -> None:
    support = str(Path(__file__).parents[1] / "support")
    path = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(Path(support) / program), str(folder), *names]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quick")
    run_in(folder, QUICK)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> Runs:
    return lambda name: record_of(folder, name)


def record_of(folder: Path, name: str) -> Record:
    return read_record(record_path(folder / name, BLANK.digest))


def losses(record: Record) -> list[float]:
    assert record.status == "ok", record.error
    return [row["loss"] for row in record.curve]


@pytest.mark.parametrize("name", ["dense", "generative", "divided sparse"])
def test_two_processes_learn_as_one(runs: Runs, name: str) -> None:
    one, two = runs(f"{name} 1"), runs(f"{name} 2")
    assert losses(two) == pytest.approx(losses(one), rel=TOLERANCE)
    assert two.counts["parameters"] == one.counts["parameters"]
    assert two.counts["steps_run"] == one.counts["steps_run"] == 15
    assert two.validation == pytest.approx(one.validation, abs=2 / 1100)  # a user or two whose best items all but tie


@pytest.mark.parametrize("name", ["dense", "generative"])
def test_the_lists_of_one_model_are_the_same_to_the_last_bit(folder: Path, runs: Runs, name: str) -> None:
    one, two = runs(f"{name} 1"), runs(f"ranked {name} 2")
    lists = [pq.read_table(ranking_path(folder / each, BLANK.digest)) for each in (f"{name} 1", f"ranked {name} 2")]
    assert lists[0].equals(lists[1])
    assert lists[0].num_rows == 1100
    assert two.scores == one.scores
    assert min(one.scores.values()) > 0.01


def test_negatives_of_a_device_alone_are_others(runs: Runs) -> None:
    together, apart = runs("dense 2"), runs("apart 2")
    assert losses(apart)[-1] != pytest.approx(losses(together)[-1], rel=10 * TOLERANCE)


def test_a_checkpoint_of_two_goes_on_in_one(runs: Runs, folder: Path) -> None:
    whole, resumed = runs("divided sparse 1"), runs("resumed 1 2")
    assert resumed.cost["resumptions"] == 1
    assert resumed.cost["begun_with"] == {"devices": 2}
    assert losses(resumed)[:2] == losses(runs("begun 2"))
    assert losses(resumed) == pytest.approx(losses(whole), rel=TOLERANCE)
    said = (folder / "resumed 1 2" / "said").read_text()  # where it goes on depends on when a checkpoint was due
    assert re.search(r"going on (from|after) epoch \d.*; it was begun with devices 2", said)


def test_a_rank_that_raises_or_dies_is_named(runs: Runs, folder: Path) -> None:
    raised, killed = runs("raised 1"), runs("killed 1")
    assert raised.error is not None
    assert killed.error is not None
    assert (raised.status, raised.error["type"]) == ("error", "ValueError")
    assert raised.error["message"] == "rank 1 of 2 (cpu): ValueError: no such thing"
    assert "cells_on_ranks.py" in raised.error["traceback"]
    assert killed.status == "killed"
    assert killed.error["message"] == ("rank 1 of 2 (cpu): killed by signal 9 (SIGKILL); its last line: about to fail")
    for name in ("raised 1", "killed 1"):
        left = {path.name for path in (folder / name).iterdir()}
        assert left == {"said", f"{BLANK.digest}.json", f"{BLANK.digest}.checkpoint"}


def test_what_each_process_learns_alone_is_refused(runs: Runs) -> None:
    error = runs("drifting 2").error
    assert error is not None
    assert error["type"] == "PluginError"
    assert error["message"].startswith("encoder Drifting: seen is not the same on all devices after an epoch.")
    assert error["message"].endswith("until it is, train it with training.devices: 1")


def test_costs_count_every_process(runs: Runs) -> None:
    one, two = runs("dense 1").cost, runs("dense 2").cost
    assert "devices" not in one
    told: dict[str, Any] = two["devices"]
    assert (told["number"], told["backend"]) == (2, "gloo")
    assert 0 < told["communication_share"] < 1
    assert sum(told["peak_process_bytes"]) >= two["peak_process_bytes"] > max(told["peak_process_bytes"])
    assert told["peak_gpu_bytes"] == [None, None]
    seconds = sum(phase["seconds"] for phase in two["phases"].values())
    assert told["device_seconds"] == pytest.approx(2 * seconds)
    assert two["phases"]["search"]["queries"] == 1100
    assert runs("dense 2").environment["devices"] == 2


@pytest.mark.slow
def test_four_processes_and_the_other_ways_to_fail(tmp_path: Path) -> None:
    run_in(tmp_path, [name for name in RUNS if name not in QUICK or name in AGAIN])
    for name in ("dense", "generative", "sparse", "divided", "divided sparse"):
        one = record_of(tmp_path, f"{name} 1")
        for devices in (2, 4):
            if (tmp_path / f"{name} {devices}").is_dir():
                assert losses(record_of(tmp_path, f"{name} {devices}")) == pytest.approx(losses(one), rel=TOLERANCE)
    whole = losses(record_of(tmp_path, "divided sparse 1"))
    for name in ("resumed 2 1", "resumed 4 2"):
        assert losses(record_of(tmp_path, name)) == pytest.approx(whole, rel=TOLERANCE)
    for rank in (0, 1):
        error = record_of(tmp_path, f"ended {rank}").error
        assert error is not None
        assert error["message"].startswith(f"rank {rank} of 2 (cpu): ended with exit status 7")
