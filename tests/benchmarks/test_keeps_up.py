"""What `make bench` says, tried on references that no machine could meet, or miss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest_plugins = "pytester"

BENCHMARKS = """
def test_slowed(keeps_up):
    keeps_up(lambda: sum(range(1000)), seconds=0)

def test_fine(keeps_up):
    keeps_up(lambda: sum(range(1000)), seconds=0)

def test_new(keeps_up):
    keeps_up(lambda: sum(range(1000)), seconds=0)
"""


@pytest.fixture
def folder(pytester: pytest.Pytester) -> pytest.Pytester:
    for name in ("conftest.py", "calibration.py"):
        shutil.copy(Path(__file__).with_name(name), pytester.path)
    pytester.path.joinpath("reference.json").write_text(
        json.dumps({"tolerance": 1.6, "ratios": {"slowed": 1e-9, "fine": 1e9, "gone": 1.0}})
    )
    pytester.makepyfile(BENCHMARKS)
    return pytester


def test_a_slowdown_fails_and_so_does_a_benchmark_without_a_reference(folder) -> None:
    done = folder.runpytest_inprocess("--benchmark-enable")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(
        [
            "slowed takes * calibration kernels, * times the reference's 1e-09; at most 1.6 times is tolerated",
            "reference.json has no ratio for new (*); run make bench-reference",
        ]
    )
    assert json.loads((folder.path / "reference.json").read_text())["ratios"]["fine"] == 1e9


def test_the_reference_is_written_anew(folder) -> None:
    folder.runpytest_inprocess("--benchmark-enable", "--write-reference").assert_outcomes(passed=3)
    written = json.loads((folder.path / "reference.json").read_text())
    assert written["ratios"].keys() == {"slowed", "fine", "new"}
    assert all(0 < ratio < 10 for ratio in written["ratios"].values())
    assert written["tolerance"] == 1.6
