"""A training that goes on from a checkpoint, in a process that has seen nothing of it, gives the same numbers bit for
bit: every step's parameters, gradients, optimizers, banks and generators, the curve, and the encoder at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from resumable import CHECKPOINTS, METHODS

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each method's training came to, whole and resumed, each by a process of its own."""
    folder = tmp_path_factory.mktemp("resume")
    helpers = [str(TESTS / "support"), str(TESTS / "third_party"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(helpers)}
    for further in ([], ["--resume"]):
        command = [sys.executable, str(TESTS / "support" / "resumable.py"), str(folder), *further]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
    whole, resumed = (json.loads((folder / f"{name}.json").read_text()) for name in ("whole", "resumed"))
    return whole, resumed


@pytest.mark.parametrize("number", CHECKPOINTS)
@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_training_equals_one_in_one_piece(runs: Any, name: str, number: int) -> None:
    whole, resumed = runs[0][name], runs[1][f"{name} {number}"]
    assert resumed["steps"] == whole["steps"][CHECKPOINTS[number] :]
    assert len(resumed["steps"]) >= 20 + 4  # the next twenty steps, and what came of each epoch
    assert resumed["curve"] == whole["curve"]
    assert resumed["end"] == whole["end"]
    assert resumed["facts"] == whole["facts"]


def test_the_hash_sees_every_step(runs: Any) -> None:
    for run in runs[0].values():
        assert len(set(run["steps"])) == len(run["steps"])
