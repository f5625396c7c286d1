"""The `tuning` of a suite: what is drawn from which ranges, or the message that refuses it."""

from __future__ import annotations

import pytest
from demo_plugins import SUITE, demo_registry, write_suite
from demo_suite import failure
from hypothesis import given
from hypothesis import strategies as st

from grbench.suite.suite import load_suite
from grbench.suite.tuning import Budget, Choices, Interval

pytestmark = pytest.mark.usefixtures("demo_training")

METHODS = """
  a: {encoder: dense, loss: contrastive, training: {validate_every: 1}}
  g: {encoder: dense, loss: contrastive, training: {validate_every: 1}, grid: {encoder.width: [8, 16]}}
  n: {encoder: dense, loss: contrastive}
  u: {encoder: dense}
"""


def suite_text(space: str, budget: str = "{trials: 3}", protocol: str = "leave_last_out", **keys: str) -> str:
    text = SUITE.format(methods=METHODS).replace("protocol: leave_last_out", f"protocol: {protocol}")
    more = "".join(f", {key}: {value}" for key, value in keys.items())
    return f"{text}tuning: {{budget: {budget}, space: {space}{more}}}\n"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{}", "tuning.space: should have at least 1 item, got {}"),
        ("{b: {encoder.width: [8]}}", "tuning.space: unknown method 'b'; there are: a, n, u"),
        ("{g: {encoder.width: [8]}}", "tuning.space.g: the method has a grid, whose rows are methods of their own"),
        ("{u: {encoder.width: [8]}}", "tuning.space.u: nothing of this method is trained"),
        ("{n: {encoder.width: [8]}}", "methods.n.training.validate_every: is needed"),
        ("{a: {}}", "tuning.space.a: should map keys such as optimizer.lr"),
        ("{a: {encodr.width: [8]}}", "tuning.space.a: unknown key 'encodr.width'; did you mean encoder?"),
        ("{a: {encoder.widht: [8]}}", "tuning.space.a.encoder.widht: unknown option; did you mean width?"),
        ("{a: {encoder.width: []}}", "tuning.space.a.encoder.width: should be a list of values, or a range"),
        ("{a: {encoder.width: 8}}", "tuning.space.a.encoder.width: should be a list of values, or a range"),
        ("{a: {encoder.width: [8, 8]}}", "tuning.space.a.encoder.width: a value is given twice"),
        ("{a: {encoder.width: [8, 0]}}", "tuning.space.a.encoder.width: should be greater than 0, got 0"),
        ("{a: {encoder.width: [8, '9']}}", 'tuning.space.a.encoder.width: should be a valid integer, got "9"'),
        ("{a: {encoder.width: {low: 8}}}", "tuning.space.a.encoder.width.high: must be given (float)"),
        ("{a: {encoder.width: {low: 8, high: 8}}}", "tuning.space.a.encoder.width.high: should be above low, 8; got 8"),
        ("{a: {encoder.width: {low: 8, high: 9, lag: 1}}}", "tuning.space.a.encoder.width.lag: unknown option"),
        ("{a: {encoder.width: {low: 8.5, high: 9}}}", "tuning.space.a.encoder.width: should be a valid integer"),
        ("{a: {encoder.width: {low: 8, high: 9, step: 0.5}}}", "takes whole numbers, so low, high and step should be"),
        ("{a: {encoder.dropout: {low: 0.5, high: 1}}}", "tuning.space.a.encoder.dropout: should be less than 1, got 1"),
        ("{a: {encoder.dropout: {low: 0, high: 0.5, log: true}}}", "encoder.dropout.low: should be above 0 where log"),
        ("{a: {encoder.dropout: {low: 0, high: 0.5, step: 1}}}", "encoder.dropout.step: should be above 0 and at most"),
        (
            "{a: {encoder.dropout: {low: 0.1, high: 0.5, step: 0.1, log: true}}}",
            "encoder.dropout.step: log is true, which has no steps",
        ),
        ("{a: {training.select: [hits@10]}}", "training.select: changes what validation scores mean"),
        ("{a: {grid: [1]}}", "tuning.space.a: unknown key 'grid'"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(tmp_path, space, message):
    assert message in failure(tmp_path, text=suite_text(space))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"budget": "{}"}, "tuning.budget: should be one of trials and training_seconds, such as {trials: 12}, got {}"),
        ({"budget": "{trials: 3, training_seconds: 9}"}, "tuning.budget: should be one of trials and training_seconds"),
        ({"budget": "{trials: 0}"}, "tuning.budget.trials: should be greater than or equal to 1, got 0"),
        ({"budget": "{trials: 1001}"}, "tuning.budget.trials: should be less than or equal to 1000, got 1001"),
        ({"budget": "{minutes: 3}"}, "tuning.budget.minutes: unknown option"),
        ({"sampler": "tpee"}, "tuning.sampler: should be 'tpe' or 'random', got \"tpee\""),
        ({"metric": "hits@20"}, "tuning.metric: this suite has no metric 'hits@20'; did you mean hits@10?"),
        ({"trials": "3"}, "tuning.trials: unknown option"),
        ({"protocol": "last_positive"}, "protocol.validation_share: is 0, so that there are no validation users"),
    ],
)
def test_what_is_wrong_with_the_other_keys(tmp_path, keys, message):
    assert message in failure(tmp_path, text=suite_text("{a: {encoder.width: [8, 16]}}", **keys))


def test_every_mistake_is_listed(tmp_path):
    path = write_suite(tmp_path, suite_text("{a: {encoder.widht: [8], encoder.dropout: [2]}, u: {encoder.width: [8]}}"))
    from grbench.errors import SuiteError

    with pytest.raises(SuiteError) as raised:
        load_suite(path).cells(demo_registry())
    assert len(str(raised.value).splitlines()) == 3


def test_a_metric_that_validation_does_not_measure_is_refused(tmp_path):
    text = suite_text("{a: {encoder.width: [8, 16]}}", metric="hits@20").replace("[hits@10]", "[hits@10, hits@20]")
    said = failure(tmp_path, text=text)
    assert said.startswith("tuning.metric: hits@20 is not validated where training selects by hits@10")


def test_a_space_knows_which_options_take_whole_numbers(tmp_path):
    space = "{a: {encoder.width: {low: 8, high: 64}, encoder.dropout: {low: 0, high: 0.5}, encoder.norm: [rms, layer]}}"
    suite = load_suite(write_suite(tmp_path, suite_text(space)))
    registry = demo_registry()
    found = suite.spaces(registry, suite.cells(registry))
    assert found == {
        "a": {
            "encoder.width": Interval(8, 64, whole=True),
            "encoder.dropout": Interval(0, 0.5),
            "encoder.norm": Choices(("rms", "layer")),
        }
    }


def test_a_tuned_cell_is_that_of_a_method_with_these_values(tmp_path):
    written = (
        "  w: {encoder: {name: dense, width: 9}, loss: contrastive, training: {validate_every: 1}, optimizer: {lr: 1}}"
    )
    text = suite_text("{a: {encoder.width: {low: 8, high: 64}, optimizer.lr: [1]}}")
    suite = load_suite(write_suite(tmp_path, text.replace("\ntuning", f"{written}\ntuning")))
    registry = demo_registry()
    cells = {cell.method.name: cell for cell in suite.cells(registry, seeds=1)}
    tuned = suite.tuned_cell(registry, cells["a"], {"encoder.width": 9, "optimizer.lr": 1}).method
    assert (tuned.encoder, tuned.stages) == (cells["w"].method.encoder, cells["w"].method.stages)


def test_values_are_written_as_a_suite_would_have_them():
    assert Interval(0.0, 0.5, step=0.1).value(0.1 + 0.1 + 0.1) == 0.3
    assert Interval(1e-4, 1e-2, log=True).value(0.00123456789) == 0.001235
    assert Interval(0.12342, 1.0).value(0.12343) == 0.12342  # never outside
    assert Interval(1, 9, whole=True).value(3) == 3


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 40))
def test_a_budget_of_seconds_admits_the_trials_that_begin_within_it(seconds, budget):
    used = Budget(training_seconds=budget).used(seconds)
    admitted = len(seconds) if used is None else used
    assert all(sum(seconds[:place]) < budget for place in range(admitted))
    assert (used is None) == (sum(seconds) < budget)
    assert used is None or sum(seconds[:used]) >= budget


def test_a_budget_of_trials_counts_them():
    assert [Budget(trials=2).used([9.0] * count) for count in range(4)] == [None, None, 2, 2]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("{a: {encoder: dense, ablation: true}}", "methods.a.ablation: says that all rows of the method's grid are"),
        (
            "{a: {encoder: dense, ablation: 1, grid: {encoder.width: [8]}}}",
            "methods.a.ablation: should be true or false",
        ),
    ],
)
def test_an_ablation_is_a_grid(tmp_path, methods, message):
    assert message in failure(tmp_path, methods)


def test_an_ablation_is_inherited(tmp_path):
    methods = """{a: {encoder: dense, ablation: true, grid: {encoder.width: [8, 16]}}, b: {extends: a},
        c: {extends: a, ablation: false}}"""
    suite = load_suite(write_suite(tmp_path, methods=methods))
    assert suite.ablations == {"a", "b"}
    assert [suite.grid_of(name) for name in ("a[width=8]", "c[width=16]", "a")] == ["a", "c", None]
