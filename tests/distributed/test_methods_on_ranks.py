"""Every reference encoder, loss and trainer learns on two processes what it learns on one."""

from __future__ import annotations

from pathlib import Path

import pytest
from methods_on_ranks import EPOCHS, METHODS, RUNS
from test_cells_on_ranks import record_of, run_in

from grbench.registry.discovery import Registry

TOLERANCE = 1e-4
"""Relative, of an epoch's mean of each term; recurrent encoders add up the most numbers in another order."""
UNTRAINED = {"most_popular"}


def test_no_reference_plugin_is_left_out() -> None:
    registry = Registry.load()
    runs = METHODS.values()
    losses = {loss.name for run in runs for loss in (run.loss if isinstance(run.loss, tuple) else (run.loss,))}
    assert {run.encoder.name for run in runs} == of_reference(registry, "encoders") - UNTRAINED
    assert losses == of_reference(registry, "losses")
    assert {run.trainer.name for run in runs} == of_reference(registry, "trainers")


def of_reference(registry: Registry, kind: str) -> set[str]:
    return {plugin.name for plugin in registry.plugins(kind) if plugin.distribution == "grbench"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    run_in(folder, list(RUNS), "methods_on_ranks.py")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_learn_what_one_learns(folder: Path, name: str) -> None:
    one, two = (record_of(folder, f"{name} {devices}") for devices in (1, 2))
    assert (one.error, two.error) == (None, None)
    curves = [
        [{key: value for key, value in row.items() if "per_second" not in key} for row in each.curve]
        for each in (one, two)
    ]
    assert len(curves[0]) == EPOCHS
    for alone, together in zip(*curves, strict=True):
        assert together == pytest.approx(alone, rel=TOLERANCE, abs=1e-6)
    assert two.scores == pytest.approx(one.scores, abs=2 / 40)  # two users whose best items all but tie
