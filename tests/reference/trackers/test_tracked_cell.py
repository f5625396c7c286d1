"""How trackers show a cell."""

import pytest
from tracked import a_cell, a_record, beside

from grbench.errors import PluginError
from grbench.registry.discovery import Registry
from grbench.suite.suite import load_suite
from grbench_reference.trackers.package import tracker_package
from grbench_reference.trackers.tracked_cell import TrackedCell, final_numbers, outcome


def test_options_have_the_keys_of_a_suite(tmp_path):
    cell = TrackedCell(tmp_path, a_cell())
    assert cell.options == {
        "suite": "small",
        "dataset": "table",
        "dataset.size": 3,
        "protocol": "leave_last_out",
        "seed": 0,
        "method": "dense",
        "tokenizer": "ids",
        "encoder": "hstu",
        "encoder.width": 8,
        "encoder.bias": True,
        "retriever": "exact",
        "filters": '["history"]',
        "loss": "infonce",
        "loss.temperature": 0.05,
        "loss.negatives.uniform": 4,
        "loss.weight": 1.0,
        "trainer": "supervised",
        "optimizer": "adam",
        "optimizer.lr": 0.003,
        "training.epochs": 2,
        "training.patience": None,
    }
    assert "secret" not in str(cell.options)


def test_stages_and_several_losses_are_told_apart(tmp_path):
    cell = a_cell()
    (stage,) = cell["method"]["stages"]
    two = [{"name": "bce", "options": {}}, 0.5]
    cell["method"]["stages"] = [{**stage, "name": "one"}, {**stage, "name": "two", "losses": [*stage["losses"], two]}]
    options = TrackedCell(tmp_path, cell).options
    assert options["one.loss"] == "infonce"
    assert options["two.loss.infonce.temperature"] == 0.05
    assert options["two.loss.bce.weight"] == 0.5
    assert "loss" not in options


def test_every_option_of_a_shipped_suite_is_a_single_value(tmp_path):
    for cell in load_suite("final_round", ()).cells(Registry.load(), None, 1):
        options = TrackedCell(tmp_path, {**cell.to_json(), "digest": "x"}).options
        assert options["method"] == cell.method.name
        assert {type(value) for value in options.values()} <= {str, int, float, bool, type(None)}


def test_names_and_paths(tmp_path):
    folder = beside(tmp_path, "x")
    cell = TrackedCell(folder, a_cell(seed=3))
    assert cell.name == "dense, seed 3"
    assert TrackedCell(folder, a_cell(trial={"number": 0})).name == "dense, seed 0, trial 1"
    assert cell.record.parent == tmp_path
    assert cell.lists.is_file()
    assert cell.kept_run() is None
    cell.keep_run("a")
    assert TrackedCell(folder, a_cell()).kept_run() == "a"


def test_numbers_of_a_record():
    assert final_numbers(a_record()) == {"test/ndcg@10": 0.25, "cost/train_seconds": 1.5, "count/parameters": 7.0}
    failed = a_record(status="error", scores={}, error={"type": "X", "message": "it broke", "traceback": ""})
    assert outcome(failed) == "error: it broke"
    assert outcome(a_record()) == "ok"


def test_rows_that_validation_chooses_from_have_no_test_numbers():
    grid = {"name": "wider", "points": 2, "ablation": False}
    validated = {"counts": {"validated_users": 9}}
    names = {"cost/train_seconds", "count/validated_users"}
    assert final_numbers(a_record(grid=grid, **validated)).keys() == names
    for shown in (
        {"grid": grid, "counts": {"validated_users": 0}},
        {"grid": grid | {"ablation": True}, **validated},
        validated,
    ):
        assert final_numbers(a_record(**shown)).keys() == names | {"test/ndcg@10"}


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    with pytest.raises(
        PluginError, match=r"tracker wandb: no_such cannot be imported .*pip install 'grbench\[wandb\]'"
    ):
        tracker_package("no_such", "wandb")
