"""What is printed into any encoding, into pipes that nobody reads, and after a signal; by real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from grbench.results.record import Record
from grbench.results.record_files import read_records, write_record
from grbench.results.values import with_values

GRBENCH = [sys.executable, "-m", "grbench"]

SUITE = """
suite: tiny
dataset: {name: interactions, path: users.json}
protocol: leave_last_out
metrics: [hit_rate@2]
methods:
  floor: {encoder: most_popular}
  slow:
    encoder: {name: causal_transformer, width: 8}
    loss: full_softmax
    training: {epochs: 100000, batch_size: 4}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a suite, its dataset and records with every character that tables use."""
    (tmp_path / "users.json").write_text(json.dumps({f"u{user}": ["a", "b", "c", "d"] for user in range(4)}))
    (tmp_path / "suite.yaml").write_text(SUITE)
    for seed in range(2):
        for method in ("one", "two ü"):
            record = Record(
                digest=f"{method[:3]}{seed}",
                suite="tiny",
                method=method,
                seed=seed,
                status="ok",
                metrics={"ndcg@10": {"higher_is_better": True, "version": "1"}},
                pool={"size": 9, "digest": "p"},
                scores={"ndcg@10": 0.6},
                baseline="one",
            )
            of_users = with_values(pa.table({"user": range(5)}), {"ndcg@10": np.array([0.2, 0.4, 0.6, 0.8, 1.0])})
            write_record(tmp_path / "records", record, of_users)
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "C"],
)
def test_an_ascii_terminal_gets_ascii(world: Path, settings: dict[str, str]) -> None:
    done = subprocess.run([*GRBENCH, "table", "records"], capture_output=True, env=os.environ | settings, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode("ascii")
    assert "NDCG@10 ^" in said
    assert ".6000** +- " in said  # both are the best, and the second cannot be told from the baseline
    assert "o: cannot be told from one" in said
    assert "two ?" in said
    wrong = subprocess.run([*GRBENCH, "table", "größe"], capture_output=True, env=os.environ | settings, check=False)
    assert wrong.returncode == 2
    assert b"Traceback" not in wrong.stderr
    assert wrong.stderr.startswith(b"grbench: gr")


@pytest.mark.parametrize(
    "command",
    [["table", "records"], ["data", "validate", "users.json"], ["run", "suite.yaml"]],
    ids=" ".join,
)
def test_a_reader_that_is_gone_ends_a_command_quietly_with_141(world: Path, command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run([*GRBENCH, *command], stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")
    assert not (world / "results").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_output_that_finds_no_space_is_one_message(world: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*GRBENCH, "table", "records"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        b"grbench: No space left on device; free some, or choose another folder (--results, --cache, --out)\n",
    )


def test_a_command_without_an_output_runs(world: Path) -> None:
    done = subprocess.run(f"'{sys.executable}' -m grbench table records >&-", shell=True, stderr=-1, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminated_run_records_the_cell_that_it_was_at(world: Path) -> None:
    with subprocess.Popen(
        [*GRBENCH, "run", "suite.yaml", "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith(b"[1/2] floor") for line in process.stdout)
        while len([*world.glob("results/tiny/*.log")]) < 2:  # the second cell begins
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said, complaints = process.communicate()
    assert (process.returncode, complaints) == (143, b"")
    assert b"Interrupted: 1 of 2 cells" in said
    statuses = {record.method: record.status for record in read_records([world / "results"])}
    assert statuses == {"floor": "ok", "slow": "interrupted"}


@pytest.mark.parametrize("delay", [0.05, 1.0])
def test_a_run_that_is_terminated_early_says_nothing_but_that(world: Path, delay: float) -> None:
    with subprocess.Popen(
        [*GRBENCH, "run", "suite.yaml", "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate()
    assert process.returncode in (-signal.SIGTERM, 143)
    assert complaints == b""
