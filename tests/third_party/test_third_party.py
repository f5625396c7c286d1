"""What strangers publish runs through the whole harness, and none of it needs a change of the core.

Each package is a module of this folder, installed by its metadata alone, and run by the command line.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

HERE = Path(__file__).parent
PACKAGES = ("learnt_codes", "policy_gradient", "time_split", "word_vectors")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the metadata that pip would have written."""
    folder = tmp_path_factory.mktemp("packages")
    for name in PACKAGES:
        shutil.copy(HERE / f"{name}.py", folder)
        metadata = folder / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[grbench]\n{name} = {name}\n")
        (metadata / "RECORD").write_text(f"{name}.py,,\n")
    return folder


@pytest.fixture
def grbench(installed: Path, tmp_path: Path) -> Any:
    """Runs a suite and returns its records by method; checks the exit status and the message."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")]),
        "GRBENCH_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }

    def run(suite: str, status: int = 0, message: str = "") -> dict[str, dict[str, Any]]:
        (tmp_path / "suite.yaml").write_text(suite)
        done = subprocess.run(
            [sys.executable, "-m", "grbench", "run", "suite.yaml"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
            timeout=120,
        )
        logs = "".join(path.read_text() for path in tmp_path.glob("results/*/*.log"))
        assert done.returncode == status, done.stdout + done.stderr + logs
        assert message in " ".join(done.stderr.split())
        assert "Traceback" not in done.stdout + done.stderr
        records = [json.loads(path.read_text()) for path in tmp_path.glob("results/*/*.json")]
        return {record["method"]: record for record in records}

    return run


def write_circle(folder: Path, users: int = 40, items: int = 12, events: int = 8) -> None:
    """Users walk round a circle of items, a third of it apart, so that the next item follows from the last."""
    walks = {
        f"u{user}": [f"i{(user + step * (1 + user % 2)) % items}" for step in range(events)] for user in range(users)
    }
    (folder / "log.json").write_text(json.dumps(walks))


LEARNT = """
suite: learnt
dataset: {name: interactions, path: log.json}
protocol: leave_last_out
metrics: [hit_rate@3]
methods:
  learnt_codes:
    tokenizer: {name: round_robin, clusters: 3}
    encoder: learnt_codes
    loss: mixture
    retriever: {name: watched_beam, watched: watched}
    optimizer: {name: adam, lr: 0.1}
    training: {epochs: 6, batch_size: 8, validate_every: 2, select: hit_rate@3}
    trackers: [final_codes]
"""


def test_a_tokenizer_learnt_with_its_decoder_is_searched_by_its_latest_codes(grbench: Any, tmp_path: Path) -> None:
    write_circle(tmp_path)
    record = grbench(LEARNT)["learnt_codes"]
    assert record["status"] == "ok"
    watched = [np.load(tmp_path / "watched" / f"{number}.npy") for number in range(4)]
    (kept,) = tmp_path.glob("results/learnt/*.d/final_codes/codes.npy")
    final = np.load(kept)
    fitted = np.arange(1, 13) % 3
    assert len(list((tmp_path / "watched").iterdir())) == 4  # three validations, and the search
    assert (watched[0][1:, 0] != fitted).any()
    assert any((one != other).any() for one, other in itertools.pairwise(watched))
    best = record["counts"]["best_epoch"]
    assert (watched[3] == final).all()
    assert (watched[3] == watched[best // 2 - 1]).all()  # those of the state that was chosen
    lists = pq.read_table(next(tmp_path.glob("results/learnt/*.parquet")))
    assert all(len(set(items)) == 3 for items in lists["items"].to_pylist())


REINFORCED = """
suite: reinforced
dataset: {name: interactions, path: log.json}
protocol: leave_last_out
metrics: [hit_rate@1]
defaults:
  encoder: {name: sid_decoder, width: 16, heads: 2, dropout: 0, history_length: 4}
  loss: next_code
  retriever: {name: beam, width: 8}
  optimizer: {name: adam, lr: 0.01}
  training: {epochs: 2, batch_size: 8}
methods:
  supervised: {}
  reinforced:
    stages:
      - {name: supervised}
      - {name: reinforced, loss: [], trainer: {name: policy_gradient, samples: 16}, training: {epochs: 8}}
"""


def test_a_policy_gradient_as_second_stage(grbench: Any, tmp_path: Path) -> None:
    """Items that come next are sampled far more often than the reference policy did."""
    write_circle(tmp_path)
    records = grbench(REINFORCED)
    curve = records["reinforced"]["curve"]
    assert [row["loss"] for row in curve[:2]] == [row["loss"] for row in records["supervised"]["curve"]]
    assert [row["stage"] for row in curve] == ["supervised"] * 2 + ["reinforced"] * 8
    rewards, distances = ([row[name] for row in curve[2:]] for name in ("reward", "distance"))
    assert rewards[0] < 0.6
    assert rewards[-1] > 0.9
    assert distances[0] < distances[-1] < 5
    assert records["reinforced"]["scores"]["hit_rate@1"] == 1.0
    assert records["reinforced"]["counts"]["steps_run"] == (2 + 8) * 5


TIMES = """
suite: times
dataset: {name: interactions, path: log.csv}
protocol: {name: time_split, moment: 300}
metrics: [hit_rate@2]
methods:
  most_popular: {encoder: most_popular}
"""


def test_a_protocol_that_splits_by_time(grbench: Any, tmp_path: Path) -> None:
    """By hand: a is popular before 300. u1's next item is a, u2's is b, u3 has no event after, u4 none before."""
    rows = ["u1,a,100", "u1,a,200", "u1,a,300", "u1,c,400", "u2,a,100", "u2,b,350", "u3,b,100", "u3,c,200", "u4,c,500"]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    record = grbench(TIMES.replace("hit_rate@2", "hit_rate@1"))["most_popular"]
    assert record["counts"]["evaluated"] == 2
    assert record["counts"]["training_events"] == 5
    assert record["scores"]["hit_rate@1"] == 0.5
    assert record["protocol"]["name"] == "time_split"
    assert record["protocol"]["moment"] == 300


WORDS = """
suite: words
dataset: titles
protocol: leave_last_out
metrics: [hit_rate@2]
methods:
  word_vectors:
    encoder: {name: word_vectors, vectors: words.txt}
    loss: full_softmax
    optimizer: {name: adam, lr: 0.05}
    training: {epochs: 10, batch_size: 4}
"""
VECTORS = "red 1 0 0\nblue -1 0 0\nshoes 0 1 0\nhat 0 0 1\n"


def test_an_encoder_that_reads_a_file_and_the_items_texts(grbench: Any, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(VECTORS)
    first = grbench(WORDS)["word_vectors"]
    assert first["scores"]["hit_rate@2"] == 1.0  # red follows red
    again = grbench(WORDS)["word_vectors"]
    assert again["finished"] == first["finished"]  # not run again
    (tmp_path / "words.txt").write_text(VECTORS.replace("red 1", "red 2"))
    grbench(WORDS)
    assert len(list(tmp_path.glob("results/words/*.json"))) == 2  # other content, another experiment


def test_a_file_that_is_not_there_is_one_message(grbench: Any, installed: Path, tmp_path: Path) -> None:
    grbench(WORDS, status=2, message="suite.yaml: methods.word_vectors.encoder.vectors: words.txt: cannot be read")
    assert not list(tmp_path.glob("results/words/*.json"))
