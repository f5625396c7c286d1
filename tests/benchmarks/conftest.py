"""`keeps_up` times a piece of work against a reference computation of the same kind and compares the ratio with those
of earlier runs, `reference.json`.

make bench               fails where a ratio is larger than the spread of the earlier runs allows
make bench-reference     writes reference.json anew, five runs: the machine should have nothing else to do
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from calibration import Kernels, Kind
from reference_runs import Reference

from grbench.testing.paired_timing import Race, Work, race

REFERENCE = Path(__file__).with_name("reference.json")
THREADS = 1
"""Of torch and Faiss, however many cores there are, so that a ratio depends neither on their number nor on what else
they do. Speed on all cores is in docs/performance.md."""

RATIOS = pytest.StashKey[dict[str, tuple[str, float, float | None, float | None]]]()
"""Name of the benchmark: the kinds of its reference computation, its ratio, how many times the usual one that is, and
how many times are tolerated."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-reference",
        choices=("new", "add"),
        help="Benchmarks: write this run to reference.json and compare nothing; new = in place of the earlier runs of "
        "these benchmarks, add = beside them.",
    )


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference.read(REFERENCE)


@pytest.fixture(scope="session")
def kernels() -> Iterator[Kernels]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield Kernels()
    torch.set_num_threads(threads)


@pytest.fixture
def keeps_up(request, benchmark, kernels: Kernels, reference: Reference) -> Callable[..., Race]:
    """keeps_up(work, "memory", "sort"): fails where the work takes longer, in reference computations of these kinds,
    than the spread of the earlier runs allows."""
    name = request.node.name.removeprefix("test_")
    write = request.config.getoption("--write-reference", default=None)

    def run(work: Work, *kinds: Kind, seconds: float = 3.0) -> Race:
        result = race(benchmark, work, kernels.together(kinds), seconds=seconds)
        if not benchmark.enabled:
            return result
        known = None if write or not reference.ratios(name) else reference.usual(name)
        tolerance = None if known is None else reference.tolerance(name)
        in_time = known is None or tolerance is None or result.holds(known * tolerance)
        times = None if known is None else result.ratio / known
        like = " + ".join(kinds)
        request.config.stash.setdefault(RATIOS, {})[name] = like, result.ratio, times, tolerance
        benchmark.extra_info.update(result.figures(), like=like, usual=known, tolerance=tolerance)
        if tolerance is None and not write:
            pytest.fail(
                f"{REFERENCE.name} has too few runs of {name} ({result.ratio:.4g}); run make bench-reference", False
            )
        if not in_time:
            pytest.fail(
                f"{name} takes {result.ratio:.4g} times its reference computation ({like}), {times:.2f} times the "
                f"{known:.4g} of {len(reference.ratios(name))} reference runs, whose spread allows {tolerance:.2f} "
                "times",
                False,
            )
        return result

    return run


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    measured = {name: ratio for name, (_, ratio, _, _) in session.config.stash.get(RATIOS, {}).items()}
    write = session.config.getoption("--write-reference", default=None)
    if measured and exitstatus == pytest.ExitCode.OK and write:
        _write(measured, replace=write == "new")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ratios = config.stash.get(RATIOS, {})
    if ratios:
        terminalreporter.section("in reference computations, in times of the reference runs, and how many are allowed")
    for name, (like, ratio, times, tolerance) in ratios.items():
        known = "" if times is None or tolerance is None else f"{times:>8.2f} {tolerance:>8.2f}"
        terminalreporter.line(f"{name:<40} {ratio:>10.4g} {like:<18}{known}")


def _write(measured: dict[str, float], *, replace: bool) -> None:
    from grbench.cost.environment import environment

    reference, machine = Reference.read(REFERENCE), environment()
    if replace:
        reference = reference.without(set(measured))
    facts = {key: machine[key] for key in ("cpu", "cpu_threads", "torch_threads", "torch", "faiss", "numpy")}
    ratios = {name: float(f"{ratio:.4g}") for name, ratio in sorted(measured.items())}
    Reference([*reference.runs, {"machine": facts, "ratios": ratios}]).write(REFERENCE)
