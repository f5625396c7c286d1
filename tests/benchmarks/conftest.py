"""`keeps_up` times a piece of work against the calibration kernel and compares the ratio with `reference.json`.

make bench               fails where a ratio has grown past the tolerance that reference.json states
make bench-reference     writes reference.json anew: the machine should have nothing else to do
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from calibration import DESCRIPTION, Kernel

from grbench.testing.paired_timing import Race, Work, race

REFERENCE = Path(__file__).with_name("reference.json")
TOLERANCE = 1.6
THREADS = 1
"""Of torch and Faiss, however many cores there are, so that a ratio depends neither on their number nor on what else
they do. Speed on all cores is in docs/performance.md."""

RATIOS = pytest.StashKey[dict[str, tuple[float, float | None]]]()
"""Name of the benchmark: its ratio, and the reference's."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-reference", action="store_true", help="Benchmarks: write reference.json, compare nothing."
    )


@pytest.fixture(scope="session")
def reference() -> dict:
    return json.loads(REFERENCE.read_text()) if REFERENCE.is_file() else {"tolerance": TOLERANCE, "ratios": {}}


@pytest.fixture(scope="session")
def kernel() -> Iterator[Kernel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield Kernel()
    torch.set_num_threads(threads)


@pytest.fixture
def keeps_up(request, benchmark, kernel: Kernel, reference: dict) -> Callable[..., Race]:
    """keeps_up(work): fails where the work takes longer, in calibration kernels, than the reference allows."""
    name = request.node.name.removeprefix("test_")
    write = request.config.getoption("--write-reference", default=False)

    def run(work: Work, *, seconds: float = 3.0) -> Race:
        result = race(benchmark, work, kernel, seconds=seconds)
        if not benchmark.enabled:
            return result
        known = reference["ratios"].get(name)
        in_time = write or known is None or result.holds(known * reference["tolerance"])
        request.config.stash.setdefault(RATIOS, {})[name] = result.ratio, known
        benchmark.extra_info.update(result.figures(), reference=known)
        if known is None and not write:
            pytest.fail(
                f"{REFERENCE.name} has no ratio for {name} ({result.ratio:.4g}); run make bench-reference", False
            )
        if not in_time:
            pytest.fail(
                f"{name} takes {result.ratio:.4g} calibration kernels, {result.ratio / known:.2f} times the "
                f"reference's {known:.4g}; at most {reference['tolerance']} times is tolerated",
                False,
            )
        return result

    return run


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    measured = {name: ratio for name, (ratio, _) in session.config.stash.get(RATIOS, {}).items()}
    if measured and exitstatus == pytest.ExitCode.OK and session.config.getoption("--write-reference", default=False):
        _write(measured, only_some=bool(session.config.option.keyword))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ratios = config.stash.get(RATIOS, {})
    if ratios:
        terminalreporter.section("in calibration kernels, and in times of the reference")
    for name, (ratio, known) in ratios.items():
        terminalreporter.line(f"{name:<40} {ratio:>10.4g} {'' if known is None else f'{ratio / known:.2f}':>8}")


def _write(measured: dict[str, float], *, only_some: bool) -> None:
    from grbench.cost.environment import environment

    before = json.loads(REFERENCE.read_text())["ratios"] if only_some and REFERENCE.is_file() else {}
    machine = environment()
    content = {
        "what": "fastest turn of each benchmark over the calibration kernel's fastest, turns alternating in one run",
        "kernel": DESCRIPTION,
        "tolerance": TOLERANCE,
        "machine": {key: machine[key] for key in ("cpu", "cpu_threads", "torch_threads", "torch", "faiss", "numpy")},
        "ratios": {name: float(f"{ratio:.4g}") for name, ratio in sorted({**before, **measured}.items())},
    }
    REFERENCE.write_text(json.dumps(content, indent=1) + "\n")
