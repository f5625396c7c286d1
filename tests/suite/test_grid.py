"""Methods that extend others, defaults, and grids: one name and one set of keys a point."""

from __future__ import annotations

import json

import pytest
from demo_suite import cells, failure
from hypothesis import given, settings
from hypothesis import strategies as st

from grbench.errors import Problems, SuiteError
from grbench.suite.grid import combinations, expand, inherit, merge

pytestmark = pytest.mark.usefixtures("demo_training")


def test_merging_a_part_that_names_another_plug_in_replaces_it():
    base = {"encoder": {"name": "hstu", "width": 64}, "loss": "bce", "training": {"epochs": 4, "precision": "bf16"}}
    assert merge(base, {"encoder": {"width": 8}})["encoder"] == {"name": "hstu", "width": 8}
    assert merge(base, {"encoder": {"name": "hstu", "blocks": 2}})["encoder"] == {
        "name": "hstu",
        "width": 64,
        "blocks": 2,
    }
    assert merge(base, {"encoder": {"name": "gru", "blocks": 2}})["encoder"] == {"name": "gru", "blocks": 2}
    assert merge(base, {"encoder": "gru"})["encoder"] == {"name": "gru"}
    assert merge(base, {"loss": {"weight": 2}})["loss"] == {"name": "bce", "weight": 2}
    assert merge(base, {"loss": None})["loss"] is None
    assert merge(base, {"loss": [{"name": "bce"}]})["loss"] == [{"name": "bce"}]
    assert merge(base, {"training": {"epochs": 5}})["training"] == {"epochs": 5, "precision": "bf16"}
    assert merge({"loss": {"name": "i", "negatives": {"uniform": 1}}}, {"loss": {"negatives": {"batch": 2}}})[
        "loss"
    ] == {
        "name": "i",
        "negatives": {"uniform": 1, "batch": 2},
    }


def test_a_chain_of_extends_ends_in_the_defaults():
    methods = {"c": {"extends": "b", "encoder": {"width": 3}}, "b": {"extends": "a"}, "a": {"encoder": "hstu"}}
    complete = inherit(methods, {"optimizer": "adam", "encoder": {"norm": "rms"}}, "x", Problems())
    assert complete["c"] == {"optimizer": "adam", "encoder": {"norm": "rms", "name": "hstu", "width": 3}}
    assert complete["b"] == complete["a"]


def test_extends_in_a_circle_and_of_nobody(tmp_path):
    circle = "{a: {extends: c}, b: {extends: a}, c: {extends: b}}"
    assert failure(tmp_path, circle) == "methods.b.extends: is a cycle: a -> c -> b -> a"
    assert failure(tmp_path, "{a: {extends: a}}").endswith("is a cycle: a -> a")
    assert failure(tmp_path, "{abc: {encoder: dense}, b: {extends: abd}}") == (
        "methods.b.extends: unknown method 'abd'; did you mean abc?"
    )


def test_a_grid_is_named_by_what_differs():
    method_keys = {"encoder": "hstu", "grid": {"encoder.width": [64, 128], "encoder.blocks": [2]}}
    assert expand("wider", method_keys, "x") == {
        "wider[width=64,blocks=2]": {"encoder": {"name": "hstu", "width": 64, "blocks": 2}},
        "wider[width=128,blocks=2]": {"encoder": {"name": "hstu", "width": 128, "blocks": 2}},
    }


@pytest.mark.parametrize(
    ("grid", "name"),
    [
        ({"encoder.dropout": [0.1], "training.dropout": [0.2]}, "m[encoder.dropout=0.1,training.dropout=0.2]"),
        ({"encoder.name": ["gru"], "loss.name": ["bce"]}, "m[encoder=gru,loss=bce]"),
        ({"encoder": [{"name": "gru", "width": 2}]}, "m[encoder=gru(width=2)]"),
        ({"loss.negatives": [{"uniform": 1}], "filters": [["cold"]]}, 'm[negatives={"uniform":1},filters=["cold"]]'),
        ({"encoder.bias": [True], "encoder.path": [None]}, "m[bias=true,path=null]"),
        ({"loss.0.weight": [2], "loss.1.weight": [3]}, "m[0.weight=2,1.weight=3]"),
    ],
)
def test_labels_are_the_shortest_that_tell_keys_apart(grid, name):
    assert list(
        expand("m", {"encoder": "hstu", "loss": [{}, {}] if "loss.0.weight" in grid else "i", "grid": grid}, "x")
    ) == [name]


def test_a_grid_over_plug_ins_does_not_mix_their_options():
    keys = {"encoder": {"name": "hstu", "heads": 2}, "grid": {"encoder.width": [8], "encoder.name": ["hstu", "gru"]}}
    assert [cell["encoder"] for cell in expand("m", keys, "x").values()] == [
        {"name": "hstu", "heads": 2, "width": 8},
        {"name": "gru", "width": 8},
    ]


def test_a_grid_is_inherited_and_its_points_share_nothing(tmp_path):
    methods = "{a: {encoder: dense, grid: {encoder.width: [8, 16]}}, b: {extends: a, encoder: {dropout: 0.5}}}"
    found = cells(tmp_path, methods, seeds=1)
    assert [cell.method.name for cell in found] == ["a[width=8]", "a[width=16]", "b[width=8]", "b[width=16]"]
    assert [cell.method.encoder.options["width"] for cell in found] == [8, 16, 8, 16]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            {f"encoder.{letter}": list(range(100)) for letter in "abcd"},
            "has 200,000,000 cells: 100,000,000 methods, with grids expanded, x seeds (2); a suite has at most 10,000",
        ),
        ({"encoder.a": list(range(5001))}, "has 10,002 cells: 5,001 methods"),
        ({"encoder.a": ["x" * 1001]}, "its values should be at most 1,000 characters together"),
    ],
)
def test_a_grid_that_is_too_large_is_refused_before_it_is_expanded(tmp_path, grid, message):
    methods = json.dumps({"a": {"encoder": "dense", "grid": grid}})
    with pytest.raises(SuiteError) as raised:
        cells(tmp_path, methods)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_long_chain_of_extends(tmp_path):
    long = {f"m{n}": {"extends": f"m{n + 1}"} for n in range(4000)} | {"m4000": {"encoder": "dense"}}
    complete = inherit(long, {"loss": "l"}, "x", Problems())
    assert list(complete) == list(long)
    assert all(keys == {"loss": "l", "encoder": "dense"} for keys in complete.values())


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["encoder.a", "encoder.b", "loss.a", "training.c"]), st.sets(st.integers(), max_size=3)
    )
)
def test_a_grid_has_a_cell_a_point_each_with_its_own_name(grid):
    points = 1
    for values in grid.values():
        points *= len(values)
    keys = {"encoder": "e", "loss": "l", "grid": {key: list(values) for key, values in grid.items()}}
    if points and grid:
        assert len(expand("m", keys, "x")) == combinations("m", keys, "x") == points
    else:
        with pytest.raises(SuiteError):
            combinations("m", keys, "x")
