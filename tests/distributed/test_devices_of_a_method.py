"""What a suite may ask of devices, what of it is in the identity, and how work is divided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from grbench.distributed.ranks import Ranks, Rehearsal
from grbench.distributed.row_table import RowTable, divide_tables, divided_weights
from grbench.errors import RunError, SuiteError
from grbench.registry.discovery import Registry
from grbench.report.costs import hardware
from grbench.results.identity import cell_identity
from grbench.results.record import Record
from grbench.run.preparation import Ready, refuse_devices
from grbench.run.run_request import RunRequest
from grbench.suite.suite import Cell, load_suite

SUITE = """
suite: devices
dataset: {name: interactions, path: users.json}
protocol: leave_last_out
metrics: [ndcg@2]
defaults:
  training: {devices: 2, batch_size: 8}
methods:
  popular: {encoder: most_popular}
  dense: {encoder: causal_transformer, loss: infonce}
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "suite.yaml").write_text(SUITE)
    return tmp_path / "suite.yaml"


def cells(suite: Path, registry: Registry, *overrides: str) -> list[Cell]:
    return load_suite(suite, overrides).cells(registry)


def test_devices_are_those_of_what_is_trained(suite: Path, registry: Registry) -> None:
    popular, dense = cells(suite, registry, "defaults.training.shard_tables=10")
    assert (popular.method.devices, popular.method.shard_tables) == (1, None)
    assert (dense.method.devices, dense.method.shard_tables) == (2, 10)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "methods.dense.stages=[{name: a}, {name: b, training: {devices: 4}}]",
            "methods.dense.stages.1.training.devices: should be the same for all stages; set it in .*training alone",
        ),
        (
            "methods.dense.training.devices=9",
            "methods.dense.training.batch_size: 8 users cannot be shared by 9 devices; it is the whole batch's, so "
            "give it at least 9",
        ),
        ("methods.dense.training.devices=0", "dense.training.devices: should be greater than or equal to 1, got 0"),
        ("defaults.training.devices=-1", "defaults.training.devices: should be greater than or equal to 1, got -1"),
        ("defaults.training.devices=two", 'defaults.training.devices: should be a valid integer, got "two"'),
    ],
)
def test_what_cannot_be_shared_is_refused(suite: Path, registry: Registry, override: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        cells(suite, registry, override)


def test_what_does_not_change_a_number_is_not_in_the_identity(suite: Path, registry: Registry) -> None:
    def identity(*overrides: str) -> object:
        return cell_identity(cells(suite, registry, *overrides)[1], registry, "data")

    usual, apart = identity(), "defaults.training.gather_targets=false"
    assert identity("defaults.training.devices=4") == identity("defaults.training.devices=1") == usual
    assert identity("defaults.training.shard_tables=10") == usual
    assert identity(apart, "defaults.training.devices=1") == usual
    assert identity(apart) != usual
    assert identity(apart, "defaults.training.devices=4") != identity(apart)


def test_more_devices_than_gpus_are_refused_in_the_plan(suite: Path, registry: Registry) -> None:
    found = cells(suite, registry, "defaults.training.devices=4")
    plan = SimpleNamespace(suite=SimpleNamespace(path="suite.yaml"), to_run=[SimpleNamespace(cell=c) for c in found])
    request = RunRequest(suite=suite)

    def ready(*gpus: int) -> Ready:
        return Ready({"gpus": list(gpus)}, [], {})

    with pytest.raises(RunError) as refused:
        refuse_devices(plan, ready(24, 24), request)  # type: ignore[arg-type]
    assert str(refused.value) == (
        "suite.yaml: methods.dense.training.devices: 4, and torch sees 2 GPUs here; set it to 2, or run the suite with "
        "--device cpu"
    )
    refuse_devices(plan, ready(), request)  # type: ignore[arg-type]
    refuse_devices(plan, ready(1, 1, 1, 1), request)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="with --jobs 2 each cell has one GPU; run it with --jobs 1"):
        refuse_devices(plan, ready(1, 1, 1, 1), replace(request, jobs=2))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 4, 7, 8])
def test_parts_are_consecutive_and_all(size: int, count: int) -> None:
    parts = [list(range(count))[Ranks(rank, size).part(count)] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("smaller", [True, False])
@pytest.mark.parametrize("batches", [1, 2, 5, 8])
def test_each_batch_is_kept_once_and_turns_are_of_one_size(size: int, smaller: bool, batches: int) -> None:
    turns = [Ranks(rank, size).turns(batches, last_is_smaller=smaller) for rank in range(size)]
    kept = [number for numbers, keeps in turns for number, keep in zip(numbers, keeps, strict=True) if keep]
    assert sorted(kept) == list(range(batches))
    for numbers in zip(*(numbers for numbers, _ in turns), strict=True):
        assert len({smaller and number == batches - 1 for number in numbers}) == 1


def test_only_large_tables_that_can_be_divided_are() -> None:
    module = nn.ModuleList([RowTable(9, 2), RowTable(10, 2), RowTable(20, 2), nn.Embedding(20, 2)])
    module[2].divisible = False
    divide_tables(module, 10, Rehearsal(size=4))
    assert [len(weight) for weight in divided_weights(module)] == [3]
    assert len(module[1].weight) == 3
    divide_tables(module, None, Rehearsal(size=4))
    divide_tables(module, 1, Ranks())
    assert len(divided_weights(module)) == 1


def test_a_rehearsed_look_up_has_the_shapes_of_one() -> None:
    table = RowTable(10, 2, padding_idx=0)
    table.divide(Rehearsal(size=4))
    rows = torch.tensor([[0, 9], [9, 3]])
    vectors = table(rows)
    vectors.sum().backward()
    assert vectors.shape == (2, 2, 2)
    assert table.weight.grad is not None
    assert table.weight.grad.shape == (3, 2)


def test_tables_name_several_devices() -> None:
    record = Record(digest="d", suite="s", method="m", seed=0, status="ok", environment={"cpu": "C", "gpu": "G"})
    assert hardware(record) == "C, G"
    assert hardware(replace(record, environment={"cpu": "C", "gpu": "G", "devices": 2})) == "C, 2 x G"
    without = replace(record, environment={"cpu": "C", "gpu": None, "devices": 2})
    assert hardware(without) == "C, no GPU used, 2 processes a cell"
