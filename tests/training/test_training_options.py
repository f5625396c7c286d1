"""The keys of `training` that only validation reads: where they are refused, and how a method does without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from demo_plugins import demo_registry, write_suite

from grbench.errors import SuiteError
from grbench.suite.suite import load_suite

METHOD = "{a: {encoder: dense, loss: contrastive, training: %s}}"
STAGES = "{a: {encoder: dense, loss: contrastive, training: {patience: 2}, stages: [{name: one}, %s]}}"
SHARED = "defaults.training={validate_every: 2, select: hits@10, patience: 3, validation_users: 50}"


def trainings(tmp_path: Path, methods: str, *overrides: str) -> list[dict[str, Any]]:
    suite = load_suite(write_suite(tmp_path, methods=methods), overrides)
    return [stage.training for cell in suite.cells(demo_registry(), seeds=1) for stage in cell.method.stages]


@pytest.mark.parametrize(
    ("methods", "key"),
    [
        (METHOD % "{patience: 2}", "training.patience"),
        (METHOD % "{patience: 2, validate_every: 0}", "training.patience"),
        (METHOD % "{patience: 2, validate_every: null}", "training.patience"),
        (METHOD % "{validation_users: 9}", "training.validation_users"),
        (METHOD % "{select: hits@10}", "training.select"),
        (STAGES % "{name: two, training: {validate_every: 1, select: hits@10}}", "training.patience"),  # of `one`
    ],
)
def test_what_only_validation_reads_is_refused_where_nothing_is_validated(
    tmp_path: Path, methods: str, key: str
) -> None:
    with pytest.raises(SuiteError) as raised:
        trainings(tmp_path, methods)
    name = key.rpartition(".")[2]
    assert str(raised.value) == (
        f"{tmp_path / 'x.yaml'}: methods.a.{key}: nothing is validated, so it would have no effect; set validate_every "
        f"to the number of epochs between validations, or leave {name} out (where it is inherited, `validate_every: "
        "null` does)"
    )


@pytest.mark.parametrize("none", ["null", "0"])
def test_a_method_without_validation_takes_over_nothing_about_it(tmp_path: Path, none: str) -> None:
    (without,) = trainings(tmp_path, METHOD % f"{{epochs: 7, validate_every: {none}}}", SHARED)
    assert not without["validate_every"]
    assert (without["epochs"], without["patience"], without["validation_users"]) == (7, None, None)
    (with_it,) = trainings(tmp_path, METHOD % "{epochs: 7}", SHARED)
    assert [with_it[key] for key in ("validate_every", "patience", "validation_users")] == [2, 3, 50]


def test_a_stage_may_do_without_the_validation_of_its_method(tmp_path: Path) -> None:
    stages = "stages: [{name: one, training: {validate_every: null}}, {name: two}]"
    one, two = trainings(tmp_path, f"{{a: {{encoder: dense, loss: contrastive, {stages}}}}}", SHARED)
    assert (one["validate_every"], one["patience"]) == (None, None)
    assert (two["validate_every"], two["patience"]) == (2, 3)


def test_a_method_that_trains_nothing_may_stand_under_such_defaults(tmp_path: Path) -> None:
    assert trainings(tmp_path, "{a: {encoder: dense}}", "defaults.training.patience=3") == []
