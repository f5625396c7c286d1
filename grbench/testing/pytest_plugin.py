"""Fixtures for the tests of plug-ins; pytest finds them through the entry point group `pytest11`.

pytest loads this file in every run where grbench is installed, so all that takes time is imported inside the fixtures.

    def test_my_encoder_keeps_up(versus):
        versus("encoders", "my_encoder", reference="causal_transformer", at_most=1.5)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from grbench.data.split import Split
    from grbench.data.store import Store
    from grbench.registry.discovery import Registry
    from grbench.testing.paired_timing import Race
    from grbench.testing.workbench import PluginChoice, Size, Workbench

RACES = pytest.StashKey[list[str]]()

SECONDS = 4.0
"""How long a race lasts, unless a single turn of it is longer."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Lists what every race came to."""
    verdicts = config.stash.get(RACES, [])
    if verdicts:
        terminalreporter.section("versus")
    for verdict in verdicts:
        terminalreporter.line(verdict)


@pytest.fixture(scope="session")
def benchmark_registry() -> Registry:
    """Where `versus` and `workbench` find plug-ins: everything that is installed."""
    from grbench.registry.discovery import Registry

    return Registry.load()


@pytest.fixture(scope="session")
def benchmark_device() -> str:
    """Where models are trained and searched."""
    return "cpu"


@pytest.fixture(scope="session")
def benchmark_size(request: pytest.FixtureRequest) -> Size:
    """How large the work is: the shape of TencentGR, and tiny where benchmarks are disabled."""
    from grbench.testing.workbench import SMOKE, TIMED

    option = request.config.getoption  # the options are pytest-benchmark's; to enable wins, as it does there
    timed = option("benchmark_enable", False) or not option("benchmark_disable", True)
    return TIMED if timed else SMOKE


@pytest.fixture(scope="session")
def benchmark_store(
    benchmark_registry: Registry, benchmark_size: Size, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    """The world's store: synthetic, in TencentGR's layout, with all features and emb_81."""
    from grbench.data.store_writer import build_store
    from grbench.registry.component import Component

    world = Component("tencentgr_synthetic", {"users": benchmark_size.users, "items": benchmark_size.items})
    dataset = benchmark_registry.build("datasets", world)
    return build_store(dataset, name="benchmark", cache=tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="session")
def benchmark_split(benchmark_registry: Registry, benchmark_store: Store) -> Split:
    """What is trained on and searched."""
    split: Split = benchmark_registry.build("protocols", "last_positive").split(benchmark_store)
    return split


@pytest.fixture(scope="session")
def workbench(
    request: pytest.FixtureRequest, benchmark_registry: Registry, benchmark_size: Size, benchmark_device: str
) -> Iterator[Workbench]:
    """Makes the pieces of work that plug-ins are timed by; the data is made when one of them asks for it."""
    import torch

    from grbench.testing.workbench import SMOKE, Workbench

    split, store = (partial(request.getfixturevalue, name) for name in ("benchmark_split", "benchmark_store"))
    torch.set_flush_denormal(benchmark_size != SMOKE)  # as a cell does before it trains
    yield Workbench(benchmark_registry, split, store=store, size=benchmark_size, device=benchmark_device)
    torch.set_flush_denormal(False)


@pytest.fixture
def versus(benchmark: Any, workbench: Workbench, request: pytest.FixtureRequest) -> Versus:
    """See Versus."""
    return Versus(benchmark, workbench, request.config)


class Versus:
    """Races a plug-in against a reference, and fails where it takes more than `at_most` times as long.

    Both are named as in a suite: a name, or {"name": ..., option: ...}. What is timed: a dataset's ingest, a protocol's
    split, a tokenizer's fit, a training step with an encoder, loss, trainer or optimizer, a retriever's search, a
    metric's scores. Their partners may be named too: versus("losses", "mine", reference="bce", at_most=2,
    encoder="my_encoder"). Both sides run once and nothing is asserted where benchmarks are disabled
    (`pytest --benchmark-disable`).
    """

    def __init__(self, benchmark: Any, workbench: Workbench, config: pytest.Config) -> None:
        self.benchmark, self.workbench, self.config = benchmark, workbench, config

    def __call__(
        self,
        kind: str,
        plugin: PluginChoice,
        *,
        reference: PluginChoice,
        at_most: float,
        batch_size: int | None = None,
        seconds: float = SECONDS,
        **parts: PluginChoice,
    ) -> Race:
        """batch_size: users of a training step. seconds: of the race. Fails the test that calls it."""
        from grbench.testing.paired_timing import race

        measured, yardstick = self.workbench.works(kind, plugin, reference, batch_size=batch_size, **parts)
        result = race(self.benchmark, measured, yardstick, seconds=seconds)
        if not self.benchmark.enabled:
            return result
        in_time = result.holds(at_most)
        facts = {"kind": kind, "plugin": plugin, "reference": reference, "at_most": at_most}
        self.benchmark.extra_info.update(facts, **result.figures())
        mine, theirs = (1000 * min(result.seconds[side]) for side in ("measured", "yardstick"))
        verdict = (
            f"{kind} {plugin} takes {result.ratio:.2f} times as long as {reference} ({mine:.3g} ms against "
            f"{theirs:.3g} ms, the fastest of {len(result.seconds['measured'])} turns each); "
            f"at most {at_most} was asked for"
        )
        self.config.stash.setdefault(RACES, []).append(verdict)
        if not in_time:
            pytest.fail(verdict, pytrace=False)
        return result
