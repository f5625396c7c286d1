"""What is refused before any cell runs, on a dataset of a few users."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grbench import hookimpl
from grbench.errors import SuiteError
from grbench.method import Component, Method
from grbench.plugins import Registry
from grbench.preparation import list_length, prepare
from grbench.processes import Events
from grbench.suite import Cell
from grbench.types import Ranking


class FirstScore:
    """A metric that has no k."""

    name, higher_is_better, worst = "first_score", True, 0.0

    def __call__(self, ranking: Ranking) -> np.ndarray:
        return ranking.scores[:, 0].astype(np.float64)


class OwnPlugins:
    @hookimpl
    def register_metrics(self, register: Any) -> None:
        register("first_score", FirstScore)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Four candidates, and a metric that leaves the length of the lists open."""
    registry = Registry.load()
    registry.add("own", "own", "1", OwnPlugins)
    monkeypatch.setattr(Registry, "load", lambda: registry)
    (tmp_path / "users.json").write_text(json.dumps({f"u{user}": ["a", "b", "c", "d"] for user in range(4)}))
    popular, nothing = Component("most_popular", {}), Component("ids", {})
    method = Method("m", nothing, popular, (), Component("exact", {}), None, {}, (), ())
    dataset = Component("interactions", {"path": str(tmp_path / "users.json")})
    cell = Cell("tiny", dataset, Component("leave_last_out", {}), (Component("first_score", {}),), method, 0)
    return {
        "cell": cell.to_json(),
        "cache": str(tmp_path / "cache"),
        "device": "cpu",
        "filters": [[]],
        "validates": False,
        "methods": [],
    }


def test_lists_longer_than_the_pool_are_refused_also_where_no_metric_has_a_k(job: dict[str, Any]) -> None:
    with pytest.raises(SuiteError, match="k=10 is larger than the pool of 4 candidates"):
        prepare(job, Events(io.StringIO()))


def test_lists_are_as_long_as_the_largest_k() -> None:
    assert list_length([Component("a", {"k": 3}), Component("b", {"k": 20}), Component("c", {})]) == 20
    assert list_length([Component("c", {})]) == 10
