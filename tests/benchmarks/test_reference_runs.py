"""How much larger than in earlier runs a ratio may be, worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from calibration import DESCRIPTIONS, Kernels, Kind
from reference_runs import Reference


def runs(**ratios: list[float]) -> Reference:
    """One run for each place of the lists."""
    longest = max(map(len, ratios.values()))
    return Reference(
        [
            {"machine": {}, "ratios": {name: each[run] for name, each in ratios.items() if run < len(each)}}
            for run in range(longest)
        ]
    )


def test_the_tolerance_is_the_prediction_limit_of_the_spread() -> None:
    # logarithms: a -.1, 0, .1, squares .02; b 0, 0, 0; c one run. Pooled: .02 over 4 degrees; t(.999, 4) = 7.1732
    reference = runs(a=[2 * math.exp(-0.1), 2.0, 2 * math.exp(0.1)], b=[3.0, 3.0, 3.0], c=[5.0])
    assert reference.usual("a") == pytest.approx(2.0)
    # a has a variance of its own, .02 over 2, that is larger
    assert reference.tolerance("a") == pytest.approx(math.exp(7.17318 * math.sqrt(0.01 * 4 / 3)), rel=1e-5)
    assert reference.tolerance("b") == pytest.approx(math.exp(7.17318 * math.sqrt(0.005 * 4 / 3)), rel=1e-5)
    assert reference.tolerance("c") == pytest.approx(math.exp(7.17318 * math.sqrt(0.005 * 2)), rel=1e-5)


def test_a_spread_takes_two_runs() -> None:
    assert runs(a=[1.0], b=[2.0]).tolerance("a") is None
    assert runs(a=[1.0], b=[2.0]).ratios("c") == []


def test_runs_are_kept_as_long_as_the_computations_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    assert Reference.read(path).runs == []
    reference = runs(a=[1.0, 2.0], b=[3.0])
    reference.write(path)
    assert Reference.read(path).runs == reference.runs
    assert reference.without({"a"}).runs == [{"machine": {}, "ratios": {"b": 3.0}}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"computations": {"compute": "another"}}))
    assert Reference.read(path).runs == []


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_a_computation_gives_nothing_back_and_can_be_repeated(kind: Kind) -> None:
    work = Kernels().together((kind, kind))
    assert work() is work() is None
