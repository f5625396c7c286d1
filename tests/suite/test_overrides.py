"""`--set` changes values of a suite."""

from __future__ import annotations

import pytest
from demo_suite import cells, failure

from grbench.registry.component import Component

pytestmark = pytest.mark.usefixtures("demo_training")


@pytest.mark.parametrize(
    ("override", "found", "value"),
    [
        ("dataset.path=over/there", lambda cell: cell.dataset.options["path"], "over/there"),
        ("dataset=table", lambda cell: cell.dataset.options["size"], 10),
        ("methods.a.encoder.width=128", lambda cell: cell.method.encoder.options["width"], 128),
        ("methods.a.encoder={name: dense, width: 7}", lambda cell: cell.method.encoder.options["width"], 7),
        (
            "methods.a.loss.negatives.uniform=3",
            lambda cell: cell.method.stages[0].losses[0][0].options["negatives"],
            {"uniform": 3},
        ),
        ("defaults.training.epochs=1", lambda cell: cell.method.stages[0].training["epochs"], 1),
        ("defaults.optimizer.lr=1e-4", lambda cell: cell.method.stages[0].optimizer.options["lr"], 1e-4),
        ("seeds=[5]", lambda cell: cell.seed, 5),
        ("keep_lists=50", lambda cell: cell.keep_lists, 50),
        ("metrics.0=hits@3", lambda cell: cell.metrics[0].options["k"], 3),
        ("protocol.next_action=", lambda cell: cell.protocol.options["next_action"], None),
        ("methods.a.encoder.norm=rms", lambda cell: cell.method.encoder.options["norm"], "rms"),
        ("protocol.next_action=a=b", lambda cell: cell.protocol.options["next_action"], "a=b"),
    ],
)
def test_set_changes_one_value(tmp_path, override, found, value):
    assert found(cells(tmp_path, overrides=[override])[0]) == value


def test_set_naming_another_plug_in_drops_the_options_of_the_one_before(tmp_path):
    overrides = ["methods.b.retriever.name=exact", "methods.b.encoder.name=dense", "methods.b.loss=contrastive"]
    assert cells(tmp_path, overrides=overrides)[1].method.retriever == Component("exact", {})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datset.path=x", "--set datset.path=x: unknown key 'datset'; did you mean dataset?"),
        ("methods.c.encoder.width=1", "--set methods.c.encoder.width=1: unknown method 'c'; there are: a, b"),
        ("seeds", "--set seeds: should be key=value, such as dataset.path=DIR"),
        ("=1", "--set =1: should be key=value"),
        ("seeds=[1", "--set seeds=[1:1: while parsing a flow sequence"),
        ("seeds.7=1", "--set seeds.7=1: there is no '7' to set in a list of 2, counted from 0"),
        ("seeds.0.x=1", "--set seeds.0.x=1: there is no 'x' to set in 0"),
        ("dataset..x=1", "--set dataset..x=1: there is no '' to set in a mapping"),
    ],
)
def test_a_set_that_leads_nowhere_says_so(tmp_path, override, message):
    assert message in failure(tmp_path, overrides=[override])
