"""From a release to batches."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from methods import cases

from grbench.data.batches import training_batches
from grbench.data.examples import newest_events
from grbench_reference.datasets.synthetic.generator import generate


@pytest.fixture(scope="module")
def release(benchmark_size, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ingest") / "release"
    generate(folder, users=benchmark_size.users, items=benchmark_size.items)
    return folder


def test_ingest(keeps_up, workbench, release) -> None:
    (work,) = workbench.works("datasets", {"name": "tencentgr", "path": str(release), "embeddings": [81], "actions": 2})
    keeps_up(work, "memory", "sort", "python", seconds=5)


@pytest.mark.parametrize(("protocol", "parts", "like"), cases("protocols"))
def test_split(keeps_up, workbench, protocol, parts, like) -> None:
    (work,) = workbench.works("protocols", protocol, **parts)
    keeps_up(work, *like)


def test_loader(keeps_up, workbench) -> None:
    """An epoch of batches of 101 events in one thread."""
    data, batch_size = workbench.split.training, workbench.size.batch_size
    epochs = itertools.count(1)

    def epoch() -> None:
        examples = newest_events(data, seed=0, epoch=next(epochs))
        batches = training_batches(data, examples, history_length=100, batch_size=batch_size, workers=0)
        assert sum(1 for _ in batches) == examples.num_batches(batch_size)

    keeps_up(epoch, "memory")
