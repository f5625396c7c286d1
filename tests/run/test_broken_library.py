"""A library that cannot be imported, which no plug-in's author can help: said with what to do, by real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUITE = """
suite: tiny
dataset: {name: interactions, path: users.json}
protocol: leave_last_out
metrics: [hit_rate@2]
methods:
  floor: {encoder: most_popular}
"""


def test_a_cell_whose_plugin_cannot_be_imported_is_a_row_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "users.json").write_text('{"u": ["a", "b", "c"], "v": ["a", "b", "c"]}')
    (tmp_path / "suite.yaml").write_text(SUITE)
    broken = tmp_path / "broken"
    (broken / "torch").mkdir(parents=True)
    (broken / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so.13 is not there')\n")
    path = os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "grbench", "run", "suite.yaml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "GRBENCH_CACHE": str(tmp_path / "cache")},
    )
    assert (done.returncode, done.stderr) == (1, "")
    said = " ".join(done.stdout.split())
    assert "floor, seed 0: error: " in said
    assert "libcudart.so.13 is not there" in said
    assert "Once what stopped them is mended, the same command tries these cells again" in said
    assert "has a log" not in said  # there was no process
    assert len([*tmp_path.glob("results/tiny/*.json")]) == 1
