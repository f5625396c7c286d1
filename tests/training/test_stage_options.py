"""The suite key `stages`: what each stage inherits, the messages for mistakes, the digest and the schema."""

from __future__ import annotations

import json

import pytest
from demo_plugins import TrainingOptions as DemoOptions
from demo_plugins import demo_registry, write_suite

from grbench.errors import GRBenchError
from grbench.registry.component import Component
from grbench.results.identity import cell_digest, cell_identity
from grbench.suite import method
from grbench.suite.json_schema import suite_schema
from grbench.suite.suite import Cell, load_suite

TWO = "[{name: seen, targets: [exposure], training: {epochs: 1}}, {name: wanted, optimizer: {lr: 0.01}}]"
STAGED = "a: {encoder: dense, loss: contrastive, training: {epochs: 3}, stages: %s}"


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """Cells of the demonstration suite with these methods."""
    monkeypatch.setattr(method, "training_options", lambda: DemoOptions)

    def cells(methods, *overrides):
        suite = load_suite(write_suite(tmp_path, methods=f"{{{methods}}}"), overrides)
        return suite.cells(demo_registry(), seeds=1)

    return cells


def test_a_stage_is_the_method_with_its_own_on_top(demo):
    (cell,) = demo(STAGED % TWO)
    seen, wanted = cell.method.stages
    assert (seen.name, seen.targets, seen.training["epochs"]) == ("seen", ("exposure",), 1)
    assert (wanted.name, wanted.targets, wanted.training["epochs"]) == ("wanted", None, 3)
    assert seen.training["batch_size"] == wanted.training["batch_size"] == 64  # of the suite's defaults
    assert seen.optimizer == Component("adam", {"lr": 0.001})
    assert wanted.optimizer == Component("adam", {"lr": 0.01})
    assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell


def test_another_optimizer_has_none_of_the_methods_options(demo):
    (cell,) = demo(STAGED % "[{name: one, optimizer: {name: sgd, lr: 1}}]", "defaults.optimizer.lr=0.5")
    assert cell.method.stages[0].optimizer == Component("sgd", {"lr": 1.0, "momentum": 0.0})


def test_a_method_without_stages_is_its_only_one(demo):
    plain, floor = demo("a: {encoder: dense, loss: contrastive}, b: {encoder: dense}")
    (only,) = plain.method.stages
    assert (only.name, only.targets, only.trainer) == ("", None, Component("supervised", {"examples": "newest"}))
    assert only.losses[0][0].name == "contrastive"
    assert floor.method.stages == ()


def test_set_grid_and_extends_reach_stages(demo):
    methods = STAGED % TWO + ", b: {extends: a, stages: [{name: only}]}, c: {extends: a, stages: null}"
    methods += ", d: {extends: a, grid: {stages.0.training.epochs: [5, 6]}}"
    found = {cell.method.name: cell.method for cell in demo(methods, "methods.a.stages.1.training.epochs=7")}
    epochs = {name: [stage.training["epochs"] for stage in each.stages] for name, each in found.items()}
    assert epochs == {"a": [1, 7], "b": [3], "c": [3], "d[epochs=5]": [5, 7], "d[epochs=6]": [6, 7]}
    assert [stage.name for stage in found["b"].stages] == ["only"]
    assert [stage.name for stage in found["c"].stages] == [""]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[]", "methods.a.stages: should be a list of stages, such as [{name: clicks, targets: [click]}]"),
        ("{name: one}", "methods.a.stages: should be a list of stages"),
        ("[one]", "methods.a.stages.0: should be a mapping with a name, such as {name: clicks, targets: [click]}"),
        ("[{targets: [click]}]", "methods.a.stages.0.name: must be given"),
        ("[{name: one, target: [click]}]", "methods.a.stages.0.target: unknown option; did you mean targets?"),
        ("[{name: one, targets: []}]", "methods.a.stages.0.targets: should have at least 1 item, got []"),
        ("[{name: one, targets: click}]", 'methods.a.stages.0.targets: should be a list, got "click"'),
        ("[{name: one}, {name: one}]", "methods.a.stages.1.name: there is already a stage 'one'"),
        ("[{name: one, training: 3}]", "methods.a.stages.0.training: should be"),
        (
            "[{name: one, training: {epoch: 3}}]",
            "methods.a.stages.0.training.epoch: unknown option; did you mean epochs",
        ),
        ("[{name: one, loss: {temp: 3}}]", "methods.a.stages.0.loss.temp: unknown option; there are: negatives, tem"),
        ("[{name: one, loss: [contrastive, contrast]}]", "methods.a.stages.0.loss.1: unknown loss 'contrast'; did you"),
        ("[{name: one, loss: next_code}]", "methods.a: loss 'next_code' needs Decoder (code_logits, start, step), whi"),
        ("[{name: one, trainer: super}]", "methods.a.stages.0.trainer: unknown trainer 'super'; did you mean super"),
        ("[{name: one, trainer: {example: all}}]", "methods.a.stages.0.trainer.example: unknown option; did you me"),
        ("[{name: one, optimizer: {l: 3}}]", "methods.a.stages.0.optimizer.l: unknown option; did you mean lr?"),
        ("[{name: one, optimizer: adm}]", "methods.a.stages.0.optimizer: unknown optimizer 'adm'; did you mean adam?"),
        (
            "[{name: one}, {name: two, training: {validate_every: 1, select: hits@1}}]",
            "methods.a.stages.1.training.select: this suite has no metric 'hits@1'; did you mean hits@10?",
        ),
    ],
)
def test_a_mistake_in_stages_is_named_with_its_place(demo, tmp_path, stages, message):
    with pytest.raises(GRBenchError) as raised:
        demo(STAGED % stages)
    assert str(raised.value).startswith(f"{tmp_path / 'x.yaml'}: ")
    assert message in str(raised.value)


def test_a_stage_may_have_losses_and_a_trainer_of_its_own(demo):
    stages = "[{name: one}, {name: two, loss: {temperature: 1}}, {name: three, loss: [contrastive, contrastive]}]"
    (cell,) = demo(STAGED % stages, "methods.a.stages.1.trainer.examples=windows")
    one, two, three = cell.method.stages
    assert [loss.options["temperature"] for each in (one, two, three) for loss, _ in each.losses] == [
        0.05,
        1,
        0.05,
        0.05,
    ]
    assert [each.trainer.options["examples"] for each in (one, two, three)] == ["newest", "windows", "newest"]


def test_a_method_may_leave_its_losses_to_its_stages(demo):
    (cell,) = demo("a: {encoder: dense, stages: [{name: one, loss: contrastive}]}")
    assert [loss.name for loss, _ in cell.method.stages[0].losses] == ["contrastive"]


def test_another_trainer_may_do_without_a_loss(demo):
    (cell,) = demo("a: {encoder: dense, trainer: own}")
    (stage,) = cell.method.stages
    assert (stage.trainer, stage.losses) == (Component("own", {}), ())


def test_stages_need_a_loss_and_are_no_default(demo):
    with pytest.raises(GRBenchError, match=r"methods.a.loss: is missing, so nothing is trained; give"):
        demo("a: {encoder: dense, stages: [{name: one}]}")
    with pytest.raises(GRBenchError, match=r"defaults: unknown key 'stages'"):
        demo(STAGED % TWO, "defaults.stages=[]")


@pytest.mark.parametrize(
    ("override", "another"),
    [
        ("stages.0.targets=[click]", True),
        ("stages.1.targets=[click]", True),
        ("stages.0.training.epochs=2", True),
        ("stages.1.optimizer.lr=0.02", True),
        ("stages.1.loss={temperature: 1}", True),
        ("stages.1.trainer={examples: windows}", True),
        ("stages=null", True),
        ("stages.0.name=renamed", True),  # losses are told it
        ("stages.0.training.workers=7", False),
        ("optimizer.lr=0.001", False),
    ],
)
def test_the_digest_covers_what_changes_the_number(demo, override, another):
    def digest(*overrides):
        (cell,) = demo(STAGED % TWO, *overrides)
        return cell_digest(cell_identity(cell, demo_registry(), "d"))

    assert (digest(f"methods.a.{override}") != digest()) is another


def test_what_every_stage_has_set_otherwise_is_no_part_of_the_digest(demo):
    stages = "[{name: one, training: {epochs: 1}}]"
    one, same = (demo(STAGED.replace("epochs: 3", f"epochs: {epochs}") % stages)[0] for epochs in (3, 4))
    assert cell_identity(one, demo_registry(), "d") == cell_identity(same, demo_registry(), "d")


def test_the_schema_knows_stages(monkeypatch):
    monkeypatch.setattr("grbench.suite.json_schema.training_options", lambda: DemoOptions)
    schema = suite_schema(demo_registry())
    listed = schema["properties"]["methods"]["additionalProperties"]["properties"]["stages"]["oneOf"][0]
    stage = listed["items"]
    assert listed["minItems"] == 1
    assert (stage["required"], stage["additionalProperties"]) == (["name"], False)
    assert set(stage["properties"]) == {"name", "targets", "loss", "trainer", "training", "optimizer"}
    assert stage["properties"]["training"]["properties"]["epochs"]["default"] == 10
    assert stage["properties"]["optimizer"] == {"$ref": "#/$defs/optimizers"}
    assert "stages" not in schema["properties"]["defaults"]["properties"]
