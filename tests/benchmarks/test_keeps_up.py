"""What `make bench` says, tried on references that no machine could meet, or miss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from reference_runs import Reference

pytest_plugins = "pytester"

BENCHMARKS = """
def test_slowed(keeps_up):
    keeps_up(lambda: sum(range(1000)), "python", seconds=0)

def test_fine(keeps_up):
    keeps_up(lambda: sum(range(1000)), "python", "sort", seconds=0)

def test_new(keeps_up):
    keeps_up(lambda: sum(range(1000)), "python", seconds=0)
"""


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # with which nothing is measured
    for name in ("conftest.py", "calibration.py", "reference_runs.py"):
        shutil.copy(Path(__file__).with_name(name), pytester.path)
    runs = [{"machine": {}, "ratios": {"slowed": 1e-9 * run, "fine": 1e9 * run, "gone": 1.0}} for run in (1, 1.1, 1.2)]
    Reference(runs).write(pytester.path / "reference.json")
    pytester.makepyfile(BENCHMARKS)
    return pytester


def written(folder: pytest.Pytester) -> list[dict[str, float]]:
    return [run["ratios"] for run in json.loads((folder.path / "reference.json").read_text())["runs"]]


def test_a_slowdown_fails_and_so_does_a_benchmark_without_a_reference(folder) -> None:
    before = written(folder)
    done = folder.runpytest_inprocess("--benchmark-enable")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(
        [
            "slowed takes * times its reference computation (python), * times the 1.097e-09 of 3 reference runs, whose "
            "spread allows * times",
            "reference.json has too few runs of new (*); run make bench-reference",
            "fine * python + sort *",
        ]
    )
    assert written(folder) == before


def test_a_run_is_written_in_place_of_the_earlier_ones_or_beside_them(folder) -> None:
    folder.runpytest_inprocess("--benchmark-enable", "--write-reference=new").assert_outcomes(passed=3)
    *earlier, new = written(folder)
    assert earlier == [{"gone": 1.0}] * 3  # which was not measured
    assert new.keys() == {"slowed", "fine", "new"}
    assert all(0 < ratio < 10 for ratio in new.values())
    folder.runpytest_inprocess("--benchmark-enable", "--write-reference=add", "-k", "fine").assert_outcomes(passed=1)
    assert written(folder)[:-1] == [*earlier, new]
    assert written(folder)[-1].keys() == {"fine"}
