"""Offline runs of Weights & Biases, read back from the files that `wandb sync` sends."""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

import pytest
from tracked import a_cell, a_record, beside, needs

from grbench.errors import PluginError
from grbench_reference.trackers.wandb import WandB

needs("wandb", "wandb")

BLOCK, HEADER = 32768, 7


def records(path: Path):
    """The records of a run's file, which is a log of LevelDB's format behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:  # the rest of a block is empty
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<xxxxHB", content, place)
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(parts)
            parts = b""


def wait_for_the_end_of(path: Path) -> None:
    """wandb's own process writes the file, and may still be at it when the run is over."""
    for _ in range(120):
        if any(record.HasField("exit") for record in records(path)):
            return
        time.sleep(0.25)
    raise AssertionError(f"{path} has no end")


def read(path: Path):
    """(run, config, rows of the history, summary) of a run's file."""
    wait_for_the_end_of(path)
    run, config, rows, summary = None, {}, [], {}
    for record in records(path):
        if record.HasField("run"):
            run = record.run
            config |= {item.key: json.loads(item.value_json) for item in run.config.update}
        if record.HasField("history"):
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
        if record.HasField("summary"):
            summary |= {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
            }
    return run, config, rows, summary


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Nobody is logged in here, and nothing is asked of anybody."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # what it has read of the environment of other tests
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_two_seeds_one_of_which_was_killed(place):
    folder = beside(place, "wandb")
    killed = WandB(mode="offline")
    killed.check()
    killed.start(folder, a_cell())
    for step in (1, 2, 3):
        killed.log(step, {"loss": 1 / step})
    killed._run.finish(exit_code=1)
    again = WandB(mode="offline", lists="upload")
    again.resume(folder, a_cell(), 2)
    again.log(3, {"loss": 1 / 3})
    again.log(3, {"ndcg@10": 0.5})
    again.finish(a_record())
    other = WandB(mode="offline")
    other.start(beside(place / "other", "wandb"), a_cell(seed=1))
    other.finish(a_record())
    found = [read(path) for path in place.glob("wandb/offline-run-*/run-*.wandb")]
    attempts = [each for each in found if each[0].display_name == "dense, seed 0"]
    (first, config, rows, _), (second, _, more, summary) = sorted(attempts, key=lambda each: "outcome" in each[3])
    (third,) = [run for run, *_ in found if run.display_name == "dense, seed 1"]
    assert first.run_id == second.run_id != third.run_id
    assert {(run.project, run.run_group) for run in (first, second, third)} == {("small", "dense")}
    assert config["encoder.width"] == 8
    assert config["lists"] == str(place / "0123456789abcdef.parquet")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert [(row["step"], row["ndcg@10"]) for row in more if "ndcg@10" in row] == [(3, 0.5)]
    assert summary["test/ndcg@10"] == 0.25
    assert summary["outcome"] == "ok"


def test_nobody_is_logged_in(place):
    with pytest.raises(PluginError, match=r"tracker wandb: .*`mode: offline`"):
        WandB(mode="online").check()
