"""The page with an example of each kind: its blocks are a package that takes part in a suite, and its tables of values
are complete."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grbench.hookspecs import KINDS
from grbench.types import Batch, Codes, Ranking, TopK

PAGE = (Path(__file__).parents[2] / "docs" / "plugin_kinds.md").read_text()
MODULE = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
(SUITE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's module with the metadata that pip would have written, its suite, and ratings of a circle of items that
    each user walks along."""
    folder = tmp_path_factory.mktemp("every_kind")
    (folder / "every_kind.py").write_text(MODULE)
    metadata = folder / "every_kind-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: every-kind\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[grbench]\nevery_kind = every_kind\n")
    (metadata / "RECORD").write_text("every_kind.py,,\n")
    (folder / "suite.yaml").write_text(SUITE)
    ratings = [f"{user}\t{7 + (user + step) % 12}\t{3 + step % 3}\t{step}" for user in range(40) for step in range(6)]
    ignored = [f"{user}\t99\t1\t100" for user in range(40)]  # would be everybody's target
    (folder / "u.data").write_text("\n".join(np.random.default_rng(0).permutation(ratings + ignored)) + "\n")
    return folder


def grbench(folder: Path, *arguments: str, status: int = 0) -> str:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "GRBENCH_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "grbench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
        timeout=240,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_blocks_are_a_package_with_every_kind(folder: Path) -> None:
    listed = [line.split()[:2] for line in grbench(folder, "plugins").splitlines() if "every-kind" in line]
    assert {kind for kind, _ in listed} == set(KINDS)


def test_its_suite_runs_to_a_table_and_its_command_reads_the_records(folder: Path) -> None:
    grbench(folder, "run", "suite.yaml")
    records = [json.loads(path.read_text()) for path in (folder / "results" / "every_kind").glob("*.json")]
    scores = {record["method"]: record["scores"] for record in records}
    assert set(scores) == {"successors", "similar_groups", "recurrent"}
    # A walk along the circle: what follows an item is the next one, for everybody.
    assert scores["successors"]["hit_rate@1"] == 1
    # Five events of each user are trained on, spread over the circle: 40 * 5 / 12 an item, nearly.
    assert scores["similar_groups"]["training_count@5"] == pytest.approx(40 * 5 / 12, rel=0.05)
    assert {record["counts"]["evaluated"] for record in records} == {40}
    assert grbench(folder, "best", "results", "--metric", "hit_rate@1").splitlines() == ["successors"]
    assert "no record in results has this metric" in grbench(folder, "best", "results", "--metric", "ndcg@1", status=2)
    table = grbench(folder, "table", "results", "--slice", "weekend")
    assert "workday (40)" in table  # all within seconds of 1970-01-01, a Thursday
    assert "weekend (" not in table
    assert "3-5 (40)" in grbench(folder, "compare", "successors", "similar_groups", "--slice", "history_length@2,5")
    (curve,) = (folder / "results" / "every_kind").glob("*.d/curve/curve.csv")
    assert {line.split(",")[1] for line in curve.read_text().splitlines()[1:]} >= {"loss"}


def test_its_plugins_pass_the_conformance_kit(folder: Path) -> None:
    told = grbench(folder, "check", "every-kind", "--set", "dataset:ratings_file.path=u.data")
    assert "13 plug-ins" in told
    assert " 0 failed" in told


def test_a_mistake_in_its_data_is_one_message(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.data").write_text("1\t2\t5\t10\n1\t3\n")
    message = grbench(folder, "run", "suite.yaml", "--set", f"dataset.path={tmp_path / 'short.data'}", status=2)
    assert "short.data: line 2 has fewer than four columns" in message


@pytest.mark.parametrize("value", [Batch, Codes, TopK, Ranking])
def test_every_field_of_the_values_is_in_the_tables(value: type) -> None:
    table = PAGE.partition(f"| `{value.__name__}` | shape | |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.strip().splitlines())))
    assert named == {field.name for field in dataclasses.fields(value)}


def test_every_kind_has_a_row_and_a_section() -> None:
    for kind in KINDS.values():
        assert f"| `{kind.name}` |" in PAGE
        assert f"\n## {kind.singular.capitalize()}\n" in PAGE
