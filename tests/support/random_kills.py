"""Kills a suite with SIGKILL at random moments, again and again, and compares what comes of it with a run in peace."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from grbench.checkpoint.file import DamagedFileError, read_about
from grbench.results.record import Record
from grbench.results.record_files import ranking_path, read_records

SUITE = """
suite: killed
dataset: {name: tencentgr_synthetic, users: 600, items: 1000, actions: 2, seed: 0}
protocol: {name: last_positive, positives: [click], evaluation_share: 0.2, validation_share: 0.1}
metrics: [hit_rate@10, ndcg@10]
seeds: [0]
defaults:
  training: {epochs: 6, batch_size: 32, workers: 1}
  trackers: [{name: jsonl, every_steps: 1}]
methods:
  dense:
    encoder: {name: causal_transformer, width: 32, dropout: 0.2, history_length: 20}
    loss: {name: infonce, negatives: {uniform: 64}, temperature: 0.05}
    training: {validate_every: 1, patience: 3}
  generative:
    tokenizer: {name: rq_kmeans, sizes: [64, 64]}
    encoder: {name: sid_decoder, width: 32, dropout: 0.1, history_length: 20}
    loss: next_code
    retriever: {name: beam, width: 10}
    training: {epochs: 4}
  two_stage:
    encoder: {name: causal_transformer, width: 32, dropout: 0.2, history_length: 20, sparse: true}
    loss: {name: infonce, negatives: {uniform: 64, bank: 256}, temperature: 0.05}
    optimizer: {name: adam, lr: 0.003}
    stages:
      - {name: exposures, targets: [exposure], training: {epochs: 3}}
      - {name: clicks, targets: [click], training: {epochs: 3}, optimizer: {lr: 0.001}}
"""
LONGEST = 0.15
"""Time until a kill, from the start of the run or of its next training, in shares of a run in peace."""
IN_TRAINING = 0.75
"""Share of the kills that wait for a training."""
BEAT = 10.0
"""An `attempt` that was touched in the last so many seconds is one that trains: a step may take long."""


@dataclass
class Figures:
    """What was seen. seconds_saved: of work that the attempts after each kill did not have to do again; seconds_lost:
    as the records say it."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    cells: int = 0
    resumptions: int = 0
    seconds_saved: float = 0.0
    seconds_lost: float = 0.0
    seconds_of_a_run_in_peace: float = 0.0
    differences: list[str] = field(default_factory=list)


def kill_at_random(place: Path, kills: int, *, seed: int = 0) -> Figures:
    """Runs the suite in `place` until it was killed so often, in rounds that each end with all cells done."""
    (place / "suite.yaml").write_text(SUITE)
    figures, draw = Figures(), random.Random(seed)
    began = time.monotonic()
    if (code := _started(place, "whole").wait()) != 0:
        raise RuntimeError(f"the run in peace ended with exit status {code}")
    figures.seconds_of_a_run_in_peace = time.monotonic() - began
    whole = _records(place / "whole")
    while sum(figures.kills.values()) < kills:
        figures.rounds += 1
        name = f"round {figures.rounds}"
        _round(place, name, kills, draw, figures)
        _compare(place, whole, name, figures)
        shutil.rmtree(place / name)
    return figures


def _started(place: Path, results: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "grbench", "run", "suite.yaml", "--device", "cpu", "--checkpoint-minutes", "0.02"]
    said = (place / "said.txt").open("ab")
    environment = os.environ | {"GRBENCH_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    with said:
        return subprocess.Popen(
            [*command, "--results", results], cwd=place, stdout=said, stderr=subprocess.STDOUT, env=environment
        )


def _round(place: Path, name: str, kills: int, draw: random.Random, figures: Figures) -> None:
    """Runs the suite until all of its cells are done."""
    while True:
        process = _started(place, name)
        while process.poll() is None:
            if sum(figures.kills.values()) >= kills:
                process.wait()
            elif _at_random(process, place / name, draw, figures.seconds_of_a_run_in_peace):
                _kill_one(process, place / name, draw, figures)
        if process.returncode == 0:
            return
        if process.returncode not in (1, -signal.SIGKILL):
            raise RuntimeError(f"grbench run ended with exit status {process.returncode}; see {place / 'said.txt'}")


def _at_random(process: subprocess.Popen[bytes], folder: Path, draw: random.Random, peace: float) -> bool:
    """Waits for a moment to kill; false where the run has ended meanwhile."""
    now = time.time()
    if draw.random() < IN_TRAINING:
        while process.poll() is None and _last_trained(folder)[0] < now:
            time.sleep(0.1)
    try:
        process.wait(draw.uniform(0, LONGEST * peace))
    except subprocess.TimeoutExpired:
        return True
    return False


def _last_trained(folder: Path) -> tuple[float, Path | None]:
    """(when a step was made last, the file that says it)."""
    found: list[tuple[float, Path]] = []
    for path in folder.rglob("attempt"):
        with contextlib.suppress(FileNotFoundError):  # its cell has just ended
            found.append((path.stat().st_mtime, path))
    return max(found, default=(0.0, None))


def _kill_one(process: subprocess.Popen[bytes], folder: Path, draw: random.Random, figures: Figures) -> None:
    """Kills the run, or the cell at work; where there is none, the run."""
    run = psutil.Process(process.pid)
    cells = [cell for server in run.children() for cell in server.children()]
    whom = draw.choice(["run", "cell", "cell"]) if cells else "run"
    victim = run if whom == "run" else cells[0]
    try:
        victim.kill()
    except psutil.NoSuchProcess:
        return
    if whom == "run":
        process.wait()
        gone = time.monotonic() + 30  # its cell leaves with it
        while any(cell.is_running() for cell in cells) and time.monotonic() < gone:
            time.sleep(0.05)
    else:
        time.sleep(0.05)
    trained, at_work = _last_trained(folder)
    in_training = time.time() - trained < BEAT
    figures.kills[f"{whom}, {'training' if in_training else 'before or after training'}"] += 1
    if at_work is None or not in_training:
        return
    for file in ("training.safetensors", "tokenizer.safetensors"):
        try:
            figures.seconds_saved += read_about(at_work.with_name(file), "checkpoint")["seconds"]
            return
        except DamagedFileError:
            continue  # there is none yet


def _records(folder: Path) -> dict[str, Record]:
    return {record.digest: record for record in read_records([folder])}


def _compare(place: Path, whole: dict[str, Record], name: str, figures: Figures) -> None:
    """Adds what differs from the run in peace, and what is there that should not be."""
    folder, found = place / name, _records(place / name)
    differ = figures.differences.append
    if set(found) != set(whole):
        differ(f"{name}: the records are {sorted(found)}")
    for digest, record in found.items():
        expected, where = whole[digest], f"{name}: {record.method}"
        figures.cells += 1
        figures.resumptions += int(record.cost.get("resumptions", 0))
        figures.seconds_lost += float(record.cost.get("lost_seconds", 0.0))
        if record.status != "ok":
            differ(f"{where} is {record.status}")
        if record.scores != expected.scores or record.counts != expected.counts:
            differ(f"{where}: scores {record.scores}, and in peace {expected.scores}")
        lists = [pq.read_table(ranking_path(each.folder or Path(), digest)) for each in (record, expected)]
        if not lists[0].equals(lists[1]):
            differ(f"{where}: its lists differ")
        logs = [_log((each.folder or Path()) / f"{digest}.d/jsonl/log.jsonl") for each in (record, expected)]
        if logs[0] != logs[1]:
            differ(f"{where}: its log has {len(logs[0])} steps, and in peace {len(logs[1])}, or their losses differ")
    left = [
        path.name for path in folder.rglob("*") if path.suffix in (".checkpoint", ".next") or ".partial-" in path.name
    ]
    if left:
        differ(f"{name}: left over are {left}")


def _log(path: Path) -> list[tuple[Any, ...]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        (line["step"], line["epoch"], line.get("loss"), line.get("ndcg@10")) for line in lines if line["event"] == "log"
    ]
