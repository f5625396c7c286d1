"""A suite file becomes cells, or one message that says where it is wrong."""

from __future__ import annotations

import dataclasses
import json

import pytest
from demo_plugins import SUITE, demo_registry, write_suite
from demo_suite import cells, failure

from grbench.errors import PluginError, SuiteError
from grbench.registry.component import Component
from grbench.suite import method
from grbench.suite.suite import Cell, checked_cells, load_suite

pytestmark = pytest.mark.usefixtures("demo_training")


# --- cells


def test_cells_are_methods_by_seeds_all_methods_first(tmp_path):
    found = cells(tmp_path)
    assert [(cell.method.name, cell.seed) for cell in found] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    a, b = found[0], found[1]
    assert a.suite == "demo"
    assert a.dataset == Component("table", {"path": "data/demo", "size": 10})
    assert a.protocol.name == "leave_last_out"
    assert a.protocol.options["min_events"] == 3
    assert a.metrics == (Component("hits", {"k": 10, "alpha": 1.0}),)
    assert a.method.tokenizer == Component("ids", {})
    assert a.method.encoder == Component("dense", {"width": 32, "dropout": 0.0, "norm": "layer"})
    (stage,) = a.method.stages
    assert stage.losses == ((Component("contrastive", {"temperature": 0.05, "negatives": {"uniform": 128}}), 1.0),)
    assert a.method.retriever == Component("exact", {})
    assert stage.optimizer == Component("adam", {"lr": 0.001})
    assert stage.training["epochs"] == 10
    assert stage.training["batch_size"] == 64
    assert b.method.retriever == Component("beam", {"beams": 3})
    assert all(cell.error is None for cell in found)


def test_a_method_without_a_loss_is_not_trained(tmp_path):
    (cell,) = cells(tmp_path, "{floor: {encoder: dense}}", seeds=1)
    assert cell.method.stages == ()


def test_several_losses_carry_weights(tmp_path):
    text = "{a: {encoder: dense, loss: [contrastive, {name: contrastive, temperature: 1, weight: 0.02}]}}"
    (cell,) = cells(tmp_path, text, seeds=1)
    losses = cell.method.stages[0].losses
    assert [(loss.options["temperature"], weight) for loss, weight in losses] == [(0.05, 1.0), (1.0, 0.02)]


def test_filters_and_trackers(tmp_path):
    text = "{a: {encoder: dense, filters: [history, not_indexed, history], trackers: [log, {name: log, every: 5}]}}"
    (cell,) = cells(tmp_path, text, seeds=1)
    assert cell.method.filters == ("history", "not_indexed")
    assert [tracker.options for tracker in cell.method.trackers] == [{"every": 1}, {"every": 5}]


def test_a_metric_may_have_a_cutoff_in_its_name_and_further_options(tmp_path):
    chosen = ["metrics=[hits@5, {name: hits, k: 10, alpha: 2.5}, {name: hits@10, alpha: 1}]"]
    assert [metric.options for metric in cells(tmp_path, overrides=chosen)[0].metrics] == [
        {"k": 5, "alpha": 1.0},
        {"k": 10, "alpha": 2.5},
        {"k": 10, "alpha": 1.0},
    ]


def test_only_and_seeds_choose(tmp_path):
    methods = "{a: {encoder: dense}, w: {extends: a, grid: {encoder.width: [8, 16]}}}"
    named = [(cell.method.name, cell.seed) for cell in cells(tmp_path, methods, only=["w"], seeds=1)]
    assert named == [("w[width=8]", 0), ("w[width=16]", 0)]
    assert [cell.method.name for cell in cells(tmp_path, methods, only=["w[width=16]", "a"], seeds=1)] == [
        "a",
        "w[width=16]",
    ]
    with pytest.raises(SuiteError, match=r"there is no method 'v'; did you mean|there are: a, w"):
        cells(tmp_path, methods, only=["v"])
    with pytest.raises(SuiteError, match="seeds: the suite has 2, so 3 cannot be run"):
        cells(tmp_path, methods, seeds=3)


def test_a_cell_goes_through_json_and_comes_back(tmp_path):
    for cell in cells(tmp_path):
        assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell


# --- broken and ill-fitting plug-ins


def test_a_broken_plug_in_breaks_the_cells_that_name_it(tmp_path):
    a, broken = cells(tmp_path, "{a: {encoder: dense}, b: {encoder: {name: lost, depth: 3}}}", seeds=1)
    assert a.error is None
    assert broken.error.startswith(f"{tmp_path / 'x.yaml'}: methods.b.encoder: encoder 'lost' of demo-plugins 1.2")
    assert broken.method.encoder == Component("lost", {"depth": 3})
    assert Cell.from_json(json.loads(json.dumps(broken.to_json()))) == broken


def test_a_missing_interface_is_reported_with_the_encoders_that_implement_it(tmp_path):
    assert failure(tmp_path, "{a: {encoder: dense, loss: next_code}}") == (
        "methods.a: loss 'next_code' needs Decoder (code_logits, start, step), which encoder 'dense' does not "
        "implement; encoders that do: generative"
    )
    assert "retriever 'exact' needs Embedder (embed, embed_histories, embed_items)" in failure(
        tmp_path, "{a: {encoder: generative, loss: next_code}}"
    )


def test_a_caller_that_does_not_say_what_it_calls_is_told_to(tmp_path, monkeypatch):
    monkeypatch.delattr("demo_plugins.NextCode.needs")
    assert failure(tmp_path).startswith("methods.b: loss 'next_code' does not declare which interfaces")


# --- mistakes


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (
            "{a: {encoder: {name: dense, widht: 1}}}",
            "methods.a.encoder.widht: unknown option; did you mean width?",
        ),
        ("{a: {encoder: dens}}", "methods.a.encoder: unknown encoder 'dens'; did you mean dense?"),
        ("{a: {encodr: dense}}", "methods.a: unknown key 'encodr'; did you mean encoder?"),
        ("{a: {loss: contrastive}}", "methods.a.encoder: is missing"),
        ("{a: {encoder: {width: 3}}}", "methods.a.encoder.name: should be the name of a plug-in"),
        ("{a: {encoder: [dense]}}", "methods.a.encoder: should be a name or a mapping with a name"),
        ("{a: {encoder: {name: dense, width: 0}}}", "methods.a.encoder.width: should be greater than 0, got 0"),
        (
            '{a: {encoder: dense, loss: contrastive, optimizer: {lr: "1e-3"}}}',
            'methods.a.optimizer.lr: should be a valid number, got "1e-3"',
        ),
        (
            "{a: {encoder: dense, loss: {name: contrastive, weight: 0}}}",
            "methods.a.loss.weight: should be greater than 0, got 0",
        ),
        (
            "{a: {encoder: dense, loss: [contrastive, bcee]}}",
            "methods.a.loss.1: unknown loss 'bcee'; there are: contrastive, next_code",
        ),
        ("{a: {encoder: dense, filters: history}}", 'methods.a.filters: should be a list, got "history"'),
        (
            "{a: {encoder: dense, filters: [histry]}}",
            "methods.a.filters.0: should be 'history', 'not_indexed' or 'no_training_event', got \"histry\"",
        ),
        (
            "{a: {encoder: dense, training: {epoch: 3}}}",
            "methods.a.training.epoch: unknown option; did you mean epochs?",
        ),
        (
            "{a: {encoder: dense, training: 3}}",
            "methods.a.training: should be a mapping of keys such as epochs and batch_size",
        ),
        ("{a: {encoder: dense, trackers: log}}", "methods.a.trackers: should be a list"),
        (
            "{a: {encoder: dense, grid: {encoder.width: 8}}}",
            "methods.a.grid.encoder.width: should be a list of values, got 8",
        ),
        ("{a: {encoder: dense, grid: []}}", "methods.a.grid: should map keys such as encoder.width to lists of values"),
        (
            "{a: {encoder: dense, grid: {encoder.widht: [8]}}}",
            "methods.a[widht=8].encoder.widht: unknown option; did you mean width?",
        ),
        (
            "{a: {encoder: dense, grid: {encodr.width: [8]}}}",
            "methods.a[width=8]: unknown key 'encodr'; did you mean encoder?",
        ),
        (
            "{a: {encoder: dense, grid: {encoder.width: [8, 8]}}}",
            "methods.a.grid: two methods would be called a[width=8]; give each value once",
        ),
        (
            "{a: {encoder: dense, grid: {encoder.width: [8, -1]}}}",
            "methods.a[width=-1].encoder.width: should be greater than 0, got -1",
        ),
        (
            "{a: {encoder: dense, filters: [not_indexed], grid: {filters.x: [8]}}}",
            "methods.a.grid.filters.x: there is no 'x' to set in a list of 1",
        ),
        *(
            (
                f"{{a: {{extends: b, {part}: {value}}}, b: {{encoder: dense}}}}",
                f"methods.a.{part}: should be a name or a mapping with a name",
            )
            for part in ("encoder", "tokenizer", "retriever", "loss", "trainer", "optimizer")
            for value in ("0", "false", "[]")
            if (part, value) != ("loss", "[]")
        ),
        *(
            (f"{{a: {{encoder: dense, loss: contrastive, {key}: {value}}}}}", f"methods.a.{key}: should be a")
            for key in ("training", "trackers", "stages", "filters")
            for value in ("0", "false", "''")
        ),
        ("{a: {encoder: dense, loss: {}}}", "methods.a.loss.name: should be the name of a plug-in"),
        ("{a: dense}", "methods.a: should be a mapping of keys such as encoder and loss"),
        ("{a.b: {encoder: dense}}", "methods: 'a.b' is not a valid name"),
        ("{}", "methods: should be a mapping of names to methods"),
        ("[a]", "methods: should be a mapping of names to methods"),
        (
            "{a: {encoder: dense, loss: contrastive, training: {validate_every: 1, select: hits@1}}}",
            "methods.a.training.select: this suite has no metric 'hits@1'; did you mean hits@10?",
        ),
    ],
)
def test_a_mistake_in_a_method_is_named_with_its_place(tmp_path, methods, message):
    assert message in failure(tmp_path, methods)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("suite=a/b", "suite: should be a name"),
        ("suite=null", "suite: is missing"),
        ("title=3", "title: should be text"),
        ("dataset=tabel", "dataset: unknown dataset 'tabel'; did you mean table?"),
        ("dataset.sise=3", "dataset.sise: unknown option; did you mean size?"),
        ("protocol=leave_one_out", "protocol: unknown protocol 'leave_one_out'; did you mean leave_last_out?"),
        ("protocol.min_event=3", "protocol.min_event: unknown option; did you mean min_events?"),
        ("metrics=[]", "metrics: should be a list such as"),
        ("metrics=hits@10", "metrics: should be a list such as"),
        ("metrics=[hit@10]", "metrics.0: unknown metric 'hit'; did you mean hits?"),
        ("metrics=[hits]", "metrics.0.k: must be given (int)"),
        ("metrics=[hits@ten]", "metrics.0: hits@ten: should be a metric's name and one cutoff k, such as ndcg@10"),
        ("metrics=[hits@0]", "such as ndcg@10"),
        ("metrics=[{name: hits, k: 0}]", "metrics.0: k: should be at least 1"),
        ("metrics=[hits@10, {name: hits, k: 10}]", "metrics.1: hits@10 is already given, as metrics.0"),
        ("seeds=3", "seeds: should be a list of whole numbers"),
        ("keep_lists=0", "keep_lists: should be a whole number from 1, such as 100, got 0"),
        ("keep_lists=true", "keep_lists: should be a whole number from 1, such as 100, got true"),
        ("keep_lists=[100]", "keep_lists: should be a whole number from 1, such as 100, got [100]"),
        ("seeds=[]", "seeds: should be a list of whole numbers"),
        ("seeds=[0, true]", "seeds: should be a list of whole numbers"),
        ("seeds=[0, -1]", "seeds: should be a list of whole numbers"),
        ("seeds=[9223372036854775808]", "seeds: should be a list of whole numbers from 0 to 9223372036854775807"),
        ("seeds=[18446744073709551616]", "18446744073709551616 is beyond 64 bits"),
        ("seeds=[1, 2, 1]", "seeds: a seed is given twice"),
        ("baseline=[1]", "baseline: there is no method '[1]'; there are: a, b"),
        ("baseline=0", "baseline: there is no method '0'; there are: a, b"),
        ("defaults=0", "defaults: should be a mapping of keys such as training"),
        ("defaults=[]", "defaults: should be a mapping of keys such as training"),
        ("defaults=false", "defaults: should be a mapping of keys such as training"),
        ("dataset=0", "dataset: should be a name or a mapping with a name, got 0"),
        ("metrics=[[]]", "metrics.0: should be a name or a mapping with a name, got []"),
        ("metrics=[{name: [hits@10]}]", "metrics.0.name: should be the name of a plug-in"),
        (f"metrics=[hits@{'9' * 5000}]", "a suite's texts have at most 4,096"),
        (f"metrics=[hits@{'9' * 4000}]", "such as ndcg@10"),
        (f"suite={'a' * 101}", "suite: should be a name of at most 100 letters"),
        (f"dataset={'a' * 4000}", "aaa... (4,000 characters)'; there are: table"),
        ("title=" + "x" * 1_000_000, "a text of 1,000,000 characters"),
        ("x" * 1_000_000 + "=1", "unknown key 'xxx"),
        ("dataset" + ".x" * 1000 + "=1", "should be at most 32 keys of at most 250 characters each"),
        ("baseline=c", "baseline: there is no method 'c'"),
        ("defaults.training.epoch=3", "defaults.training.epoch: unknown option; did you mean epochs?"),
        ("defaults.grid=3", "defaults: unknown key 'grid'"),
        ("methods=null", "methods: is missing"),
    ],
)
def test_a_mistake_in_the_suite_is_named_with_its_place(tmp_path, override, message):
    assert message in failure(tmp_path, overrides=[override])


@pytest.mark.parametrize("key", ["seeds", "defaults", "title", "baseline", "keep_lists"])
def test_null_is_as_if_a_key_were_not_there(tmp_path, key):
    suite = load_suite(write_suite(tmp_path, methods="{a: {encoder: dense}}"), [f"{key}=null"])
    without = {"seeds": (0,), "defaults": {}}
    assert getattr(suite, key) == without.get(key)


def test_null_is_the_default_of_a_part_and_no_loss_trains_nothing(tmp_path):
    (plain, null, none) = cells(
        tmp_path,
        "{a: {encoder: dense}, b: {encoder: dense, tokenizer: null, retriever: null, loss: null}, "
        "c: {encoder: dense, loss: []}}",
        seeds=1,
    )
    assert dataclasses.replace(null.method, name="a") == dataclasses.replace(none.method, name="a") == plain.method


def test_a_baseline_names_a_cell_of_a_grid(tmp_path):
    text = SUITE.format(methods="{a: {encoder: dense, grid: {encoder.width: [8, 16]}}}")
    assert load_suite(write_suite(tmp_path, text + "baseline: a[width=8]\n")).baseline == "a[width=8]"
    assert "baseline: there is no method 'a'; there are: a[width=16], a[width=8]" in failure(
        tmp_path, text=text + "baseline: a\n"
    )


WRONG = """
title: 3
suite: demo
dataset: {name: table, sise: 1, size: x}
protocol: nobody
metrics: [hits@10, hit@10, {name: hits, k: x}]
seeds: [-1]
baseline: nobody
methods:
  a:
    encoder: {name: dense, widht: 1, width: 0}
    tokenizer: 0
    loss: [contrastive, bcee]
    optimizer: {name: adam, lr: x}
    training: {epochs: 1, epoch: 2}
    trackers: [no]
  b: {encodr: dense}
  c: 3
  d: {extends: c}
  e: {extends: nobody}
  f: {encoder: dense, grid: {encoder.width: 3}}
  right: {encoder: dense}
"""


def test_all_that_is_wrong_with_a_suite_is_listed(tmp_path):
    path = write_suite(tmp_path, WRONG)
    with pytest.raises(SuiteError) as raised:
        checked_cells(path, [], demo_registry())
    places = [line.removeprefix(f"{path}: ").partition(": ")[0] for line in str(raised.value).splitlines()]
    assert sorted(places) == sorted(
        [
            *("title", "dataset.sise", "dataset.size", "protocol", "metrics.1", "metrics.2.k", "seeds"),
            *("methods.a.encoder.widht", "methods.a.encoder.width", "methods.a.tokenizer", "methods.a.loss.1"),
            *("methods.a.optimizer.lr", "methods.a.training.epoch", "methods.a.trackers.0"),
            *("methods.b", "methods.b.encoder", "methods.c", "methods.e.extends", "methods.f.grid.encoder.width"),
        ]
    )


def test_of_very_many_mistakes_the_first_hundred_are_listed(tmp_path):
    grid = json.dumps({"encoder.width": list(range(-200, 0))})
    with pytest.raises(SuiteError) as raised:
        cells(tmp_path, f"{{a: {{encoder: dense, grid: {grid}}}}}")
    first, *_, last = lines = str(raised.value).splitlines()
    assert len(lines) == 101
    assert "methods.a[width=-200].encoder.width: should be greater than 0, got -200" in first
    assert last == "... and 100 more"


def test_two_warm_ups_are_refused(tmp_path, monkeypatch):
    from grbench.training.options import TrainingOptions as Real

    monkeypatch.setattr(method, "training_options", lambda: Real)
    both = "{a: {encoder: dense, loss: contrastive, training: {warmup_share: 0.1, warmup_steps: 5}}}"
    assert failure(tmp_path, both).startswith(
        "methods.a.training.warmup_share: warmup_steps is set as well; give one of them"
    )
    (cell, *_) = cells(tmp_path, both, ["methods.a.training.warmup_steps=0"])
    assert cell.method.stages[0].training["warmup_share"] == 0.1


def test_an_unknown_name_refuses_the_suite_whatever_else_is_broken(tmp_path):
    with pytest.raises(PluginError, match="unknown encoder 'nobody'"):
        cells(tmp_path, "{a: {encoder: lost}, b: {encoder: nobody}}")
