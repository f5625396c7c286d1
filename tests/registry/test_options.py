"""One signature: what it accepts, what it says about the rest, and what it prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from grbench.errors import PluginError, SuiteError
from grbench.registry.option_types import OptionGroup
from grbench.registry.options import bind, bound_values, describe, json_schema, options_model, suggestion

if TYPE_CHECKING:
    from nowhere import Unknown


@dataclass(frozen=True, kw_only=True)
class Negatives:
    uniform: Annotated[int, Field(ge=0)] = 0
    in_batch: bool = False


def encoder(
    data: Unknown,
    *,
    num_layers: Annotated[int, Field(gt=0)],
    width: int = 32,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0,
    norm: Literal["layer", "rms"] = "layer",
    bias: bool = True,
    weights: float | Mapping[str, float] = 1.0,
    sizes: tuple[int, ...] = (256, 256),
    emb: list[int] | None = None,
    path: Path = Path("a/b"),
    negatives: Negatives = Negatives(),
    levels: dict[int, str] = {},  # noqa: B006 - read, never written
    json: str = "an option may be called like a method of pydantic's",
) -> None:
    """Does nothing.

    Args:
        data: no option
        num_layers: blocks
            one upon another
        width (int): numbers a vector

    Returns:
        norm: this is not the option's text
    """


DEFAULTS = {
    "width": 32,
    "dropout": 0.0,
    "norm": "layer",
    "bias": True,
    "weights": 1.0,
    "sizes": [256, 256],
    "emb": None,
    "path": "a/b",
    "negatives": {"uniform": 0, "in_batch": False},
    "levels": {},
    "json": "an option may be called like a method of pydantic's",
}


def test_defaults_are_filled_in_and_json_ready():
    bound = bind(encoder, {"num_layers": 2}, "x")
    assert bound == {"num_layers": 2, **DEFAULTS}
    # `dropout: 0` and its default 0 are one experiment, so they must be one value, not 0 and 0.0.
    assert isinstance(bound["dropout"], float)


def test_values_are_what_the_annotations_say():
    given_options = {
        "num_layers": 2,
        "sizes": [1, 2],
        "path": "c",
        "negatives": {"uniform": 3},
        "weights": {"click": 1},
        "levels": {"1": "a"},
    }
    values = bound_values(encoder, given_options, "x")
    assert values["sizes"] == (1, 2)
    assert values["path"] == Path("c")
    assert values["negatives"] == Negatives(uniform=3)
    assert values["weights"] == {"click": 1.0}
    assert values["levels"] == {1: "a"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layer": 1}, "x.num_layer: unknown option; did you mean num_layers?"),
        ({}, "x.num_layers: must be given (int > 0)"),
        ({"num_layers": 0}, "x.num_layers: should be greater than 0, got 0"),
        ({"num_layers": True}, "x.num_layers: should be a valid integer, got true"),
        ({"num_layers": 1.0}, "x.num_layers: should be a valid integer, got 1.0"),
        ({"num_layers": 1, "dropout": "0.1"}, 'x.dropout: should be a valid number, got "0.1"'),
        ({"num_layers": 1, "dropout": 1}, "x.dropout: should be less than 1, got 1"),
        ({"num_layers": 1, "dropout": float("nan")}, "x.dropout: should be a finite number, got NaN"),
        ({"num_layers": 1, "norm": "rsm"}, "x.norm: should be 'layer' or 'rms', got \"rsm\""),
        ({"num_layers": 1, "bias": 1}, "x.bias: should be a valid boolean, got 1"),
        ({"num_layers": 1, "emb": 81}, "x.emb: should be a list, got 81"),
        ({"num_layers": 1, "emb": [81, "82"]}, 'x.emb.1: should be a valid integer, got "82"'),
        ({"num_layers": 1, "weights": "click"}, 'x.weights: should be float | Mapping[str, float], got "click"'),
        ({"num_layers": 1, "negatives": {"unform": 1}}, "x.negatives.unform: unknown option"),
        ({"num_layers": 1, "negatives": {"uniform": -1}}, "should be greater than or equal to 0, got -1"),
        (
            {"num_layers": 1, "width": object()},
            "options must be text, numbers, true, false, null, lists or mappings",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_would_be_right(options, message):
    with pytest.raises(SuiteError) as raised:
        bind(encoder, options, "x")
    assert message in str(raised.value)


def test_nothing_close_lists_what_there_is():
    def factory(*, lr: float = 1.0, betas: float = 0.9): ...

    with pytest.raises(SuiteError, match=r"^m\.optimizer\.momentum: unknown option; there are: betas, lr$"):
        bind(factory, {"momentum": 1}, "m.optimizer")
    with pytest.raises(SuiteError, match="unknown option; there are none"):
        bind(object, {"lr": 1}, "x")
    assert suggestion("hstuu", ["hstu", "sasrec"]) == "did you mean hstu?"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda **options: None, r"instead of taking \*\*options"),
        (
            lambda *, lr=0.1: None,
            r"option lr has no annotation; write `lr: float = 0.1` \(.*test_options.py, line \d+\)",
        ),
        (lambda *, lr: None, "option lr has no annotation; write `lr: int`"),
        (lambda *, lr=None: None, r"write `lr: int \| None = None`"),
        (lambda module, lr=0.1: None, "argument lr has a default but is not keyword-only"),
        (lambda *, _lr=0.1: None, "underscore|no annotation"),
    ],
)
def test_a_signature_that_cannot_hold_options_is_the_plugins_mistake(factory, message):
    with pytest.raises(PluginError, match=message):
        bind(factory, {}, "x")


def test_annotations_that_mean_nothing_at_run_time_are_the_plugins_mistake():
    def unresolvable(*, option: Unknown = 1): ...
    def no_schema(*, option: type(pytest) = None): ...
    def wrong_default(*, width: int = 0.5): ...

    with pytest.raises(PluginError, match="import it outside of TYPE_CHECKING"):
        bind(unresolvable, {}, "x")
    with pytest.raises(PluginError, match="no_schema"):
        bind(no_schema, {}, "x")
    with pytest.raises(PluginError, match="default of option width does not fit its annotation int"):
        bind(wrong_default, {}, "x")


def test_a_dataclass_and_an_inherited_constructor_are_factories():
    class Base:
        def __init__(self, *, width: int = 1) -> None:
            """A base.

            Args:
                width: numbers a vector
            """

    class Derived(Base): ...

    assert bind(Negatives, {"uniform": 2}, "x") == {"uniform": 2, "in_batch": False}
    assert bind(Derived, {}, "x") == {"width": 1}
    assert describe(Derived)[0] == ("width", "int", "1", "numbers a vector")


def test_described_in_the_order_of_the_signature():
    rows = {row.name: row for row in describe(encoder)}
    assert list(rows) == ["num_layers", *DEFAULTS]
    assert rows["num_layers"] == ("num_layers", "int > 0", "required", "blocks one upon another")
    assert rows["width"] == ("width", "int", "32", "numbers a vector")
    assert rows["dropout"].type == "float >= 0 and < 1"
    assert rows["norm"] == ("norm", "layer | rms", '"layer"', "")
    assert rows["emb"].type == "list[int] | null"
    assert rows["emb"].default == "null"
    assert rows["sizes"].type == "list[int]"


def test_json_schema_says_the_same():
    schema = json_schema(encoder)
    assert schema["required"] == ["num_layers"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["num_layers"]["exclusiveMinimum"] == 0
    assert schema["properties"]["num_layers"]["description"] == "blocks one upon another"
    assert schema["properties"]["norm"]["enum"] == ["layer", "rms"]
    assert options_model(encoder) is options_model(encoder)


@dataclass(frozen=True, kw_only=True)
class Table(OptionGroup):
    """A table.

    Args:
        rows: how many.
        hashes: rows of each further one.
    """

    rows: Annotated[int, Field(ge=0)] = 8
    hashes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Towers(OptionGroup):
    """Two towers.

    Args:
        pooling: of values.
        rows: of a tower's table.
    """

    pooling: Literal["mean", "sum"]
    table: Table = Table(rows=4)
    weights: dict[str, float] = dataclass_field(default_factory=dict)


class Grouped:
    """A factory with groups.

    Args:
        width: numbers a vector.
        hashes: of this factory's own.
    """

    def __init__(self, data: Unknown, *, width: int = 2, towers: Towers, top: bool = False) -> None:
        self.given = width, towers, top


def test_the_fields_of_a_group_are_options_of_the_factory():
    assert bind(Grouped, {"pooling": "sum", "rows": 0}, "x") == {
        "width": 2,
        "pooling": "sum",
        "rows": 0,
        "hashes": [],
        "weights": {},
        "top": False,
    }
    made = Grouped(None, **bound_values(Grouped, {"pooling": "sum", "hashes": [1, 2]}, "x"))
    assert made.given == (2, Towers(pooling="sum", table=Table(rows=4, hashes=(1, 2)), weights={}), False)


def test_groups_are_described_where_they_stand_and_the_factory_has_the_last_word():
    assert [tuple(option) for option in describe(Grouped)] == [
        ("width", "int", "2", "numbers a vector."),
        ("pooling", "mean | sum", "required", "of values."),
        ("rows", "int >= 0", "4", "of a tower's table."),
        ("hashes", "list[int]", "[]", "of this factory's own."),
        ("weights", "dict[str, float]", "{}", ""),
        ("top", "bool", "false", ""),
    ]
    schema = json_schema(Grouped)
    assert list(schema["properties"]) == ["width", "pooling", "rows", "hashes", "weights", "top"]
    assert schema["required"] == ["pooling"]
    assert schema["properties"]["rows"] == {
        "default": 4,
        "description": "of a tower's table.",
        "minimum": 0,
        "title": "Rows",
        "type": "integer",
    }


def test_the_argument_s_default_sets_those_of_the_fields():
    def factory(*, table: Table = Table(hashes=(3,))): ...

    assert bind(factory, {}, "x") == {"rows": 8, "hashes": [3]}
    assert bound_values(factory, {"rows": 1}, "x") == {"table": Table(rows=1, hashes=(3,))}


@dataclass(frozen=True, kw_only=True)
class TallTable(Table):
    """A taller one.

    Args:
        height: how tall.
    """

    height: int = 1


def test_a_group_may_inherit_from_another():
    def factory(*, table: TallTable): ...

    assert [(option.name, option.doc) for option in describe(factory)] == [
        ("rows", "how many."),
        ("hashes", "rows of each further one."),
        ("height", "how tall."),
    ]
    assert bound_values(factory, {"height": 2}, "x") == {"table": TallTable(height=2)}


def test_mistakes_in_the_options_of_a_group_are_named_as_those_of_the_factory():
    for options, message in [
        ({"pooling": "max"}, "x.pooling: should be 'mean' or 'sum', got \"max\""),
        ({}, "x.pooling: must be given (mean | sum)"),
        ({"towers": {"pooling": "sum"}}, "x.towers: unknown option"),
        ({"pooling": "sum", "rows": -1}, "x.rows: should be greater than or equal to 0, got -1"),
    ]:
        with pytest.raises(SuiteError) as raised:
            bind(Grouped, options, "x")
        assert message in str(raised.value)


class Unfrozen(OptionGroup):
    rows: int = 1


def test_a_group_that_cannot_be_bound_is_the_plugins_mistake():
    def twice(*, table: Table, rows: int = 1): ...
    def two_groups(*, table: Table, towers: Towers): ...
    def no_dataclass(*, group: Unfrozen): ...
    def other_default(*, table: Table = 3): ...

    for factory, message in [
        (twice, "twice: option rows is declared twice; names must be unique"),
        (two_groups, "two_groups: option rows is declared twice"),
        (no_dataclass, r"Unfrozen: a group of options must be a dataclass\(frozen=True, kw_only=True\)"),
        (other_default, "the default of argument table must be a Table"),
    ]:
        with pytest.raises(PluginError, match=message):
            bind(factory, {}, "x")


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"num_layers": st.integers(1, 2**40)},
        optional={
            "dropout": st.floats(0, 1, exclude_max=True),
            "weights": st.floats(-1e300, 1e300) | st.dictionaries(st.text(), st.integers(0, 9)),
            "sizes": st.lists(st.integers()),
            "json": st.text(),
        },
    )
)
def test_binding_what_was_bound_changes_nothing(options):
    bound = bind(encoder, options, "x")
    assert bind(encoder, bound, "x") == bound
    assert bind(encoder, bound_values(encoder, bound, "x") | {"negatives": bound["negatives"]}, "x") == bound
