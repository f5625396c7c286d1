"""The fixtures as a plug-in's author meets them: in a test folder of their own, found without an import."""

from __future__ import annotations

import pytest

pytest_plugins = "pytester"

A_PLUGIN = """
import time

import pytest

from grbench import hookimpl
from grbench.registry.discovery import Registry
from grbench.testing import tiny_store
from grbench_reference.protocols.leave_last_out import LeaveLastOut
from grbench.testing.workbench import SMOKE
from grbench_reference.metrics.ndcg import NDCG

class Sleepy(NDCG):
    def __init__(self, *, k: int, seconds: float = 0.03):
        super().__init__(k=k)
        self.seconds = seconds

    def __call__(self, ranking):
        time.sleep(self.seconds)
        return super().__call__(ranking)

class Mine:
    @hookimpl
    def register_metrics(self, register):
        register("sleepy", Sleepy)

@pytest.fixture(scope="session")
def benchmark_registry():
    registry = Registry.load()
    registry.add("mine", "mine", "1", Mine)
    return registry

@pytest.fixture(scope="session")
def benchmark_size():
    return SMOKE

@pytest.fixture(scope="session")
def benchmark_split(tmp_path_factory):
    histories = [[(1 + (user + step) % 9, 1, step) for step in range(6)] for user in range(20)]
    return LeaveLastOut().split(tiny_store(tmp_path_factory.mktemp("world"), histories))
"""

TESTS = """
def test_slow(versus):
    versus("metrics", "sleepy", reference="ndcg", at_most=1.5, seconds=0.1)

def test_options(versus, benchmark):
    race = versus("metrics", {"name": "sleepy", "k": 3, "seconds": 0.0}, reference="sleepy", at_most=1, seconds=0.1)
    assert len(race.seconds["measured"]) == (5 if benchmark.enabled else 1)
    assert bool(benchmark.extra_info.get("at_most")) == benchmark.enabled

def test_of_data(versus):
    versus("tokenizers", "ids", reference="ids", at_most=1e9, seconds=0)
"""


@pytest.fixture
def authors(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # with which nothing is measured
    pytester.makeconftest(A_PLUGIN)
    pytester.makepyfile(TESTS)
    return pytester


def test_a_slow_plugin_fails_and_the_ratio_is_told(authors):
    done = authors.runpytest_subprocess("--benchmark-enable", "--benchmark-json=out.json")
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.re_match_lines(
        [r"metrics sleepy takes [\d.]+ times as long as ndcg \([\d.e+]+ ms against .*turns each\); at most 1.5 was"]
    )
    done.stdout.fnmatch_lines(["*= versus =*", "tokenizers ids takes * times as long as ids *"])
    assert '"ratio"' in (authors.path / "out.json").read_text()


def test_nothing_is_asserted_where_benchmarks_are_disabled(authors):
    authors.runpytest_inprocess("--benchmark-disable").assert_outcomes(passed=3)


def test_the_plugin_is_light(pytester):
    """Every pytest run of everybody who has grbench installed loads it."""
    pytester.makepyfile("import sys\ndef test_light():\n    assert 'torch' not in sys.modules")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
