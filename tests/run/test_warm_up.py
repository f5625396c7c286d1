"""A warm-up that is longer than its stage is said, with its key and the number of updates."""

from __future__ import annotations

from dataclasses import replace

import pytest
from attempts import cell_of, registry_of_attempts, store_of_attempts

from grbench.data.split import Split
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.run.prepare import split_store
from grbench.run.warm_up import long_warm_ups
from grbench.suite.method import Method


@pytest.fixture(scope="module")
def registry() -> Registry:
    return registry_of_attempts()


@pytest.fixture(scope="module")
def split(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Split:
    return split_store(store_of_attempts(tmp_path_factory.mktemp("store")), Component("leave_last_out"), registry)


def with_warm_up(steps: int, **training: object) -> Method:
    """A method whose last stage has two epochs of four batches."""
    method = cell_of("dense").method
    stage = method.stages[-1]
    changed = replace(
        stage, training={**stage.training, "warmup_steps": steps, "epochs": 2, "batch_size": 4, **training}
    )
    return replace(method, stages=(*method.stages[:-1], changed))


def test_a_warm_up_that_ends_with_its_stage_is_fine(registry: Registry, split: Split) -> None:
    assert list(long_warm_ups(with_warm_up(8), registry, split)) == []
    assert list(long_warm_ups(with_warm_up(0), registry, split)) == []


def test_a_longer_one_is_said(registry: Registry, split: Split) -> None:
    (said,) = long_warm_ups(with_warm_up(9), registry, split)
    assert said.startswith("methods.dense.training.warmup_steps: 9 are more than the stage's 8 updates, so that ")
    (said,) = long_warm_ups(with_warm_up(5, accumulate=2), registry, split)
    assert "5 are more than the stage's 4 updates" in said


def test_the_trainers_own_examples_count(registry: Registry, split: Split) -> None:
    method = with_warm_up(9)
    stage = replace(method.stages[-1], trainer=Component("supervised", {"examples": "prefixes"}))
    assert list(long_warm_ups(replace(method, stages=(stage,)), registry, split)) == []
