"""The key `slices` of a suite."""

from __future__ import annotations

from typing import Any

import pytest
from demo_plugins import SUITE, DemoPlugins, demo_registry, write_suite
from demo_suite import failure

from grbench.errors import GRBenchError
from grbench.hookspecs import KINDS, hookimpl
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.suite.json_schema import suite_schema
from grbench.suite.suite import load_suite

pytestmark = pytest.mark.usefixtures("demo_training")


class Country:
    def __init__(self, *, region: str = "world") -> None:
        if not region:
            raise ValueError("region: should not be empty")
        self.name = "country" if region == "world" else f"country@{region}"

    def __call__(self, ranking: Any) -> Any: ...


class Gap(Country):
    pass


class Nameless:
    def __call__(self, ranking: Any) -> Any: ...


class SliceDemo:
    @hookimpl
    def register_slices(self, register: Any) -> None:
        register("country", Country)
        register("gap", Gap)
        register("nameless", Nameless)
        register("lost", "demo_plugins_that_are_not_there:Slice")


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add("demo", "demo-plugins", "1.2", DemoPlugins)
    registry.add("slices", "slice-plugins", "1.0", SliceDemo)
    return registry


def slices(tmp_path: Any, registry: Registry, *overrides: str) -> tuple[Component, ...]:
    return load_suite(write_suite(tmp_path), overrides).cells(registry)[0].slices


def test_without_the_key_a_suite_has_the_default_slices_that_are_installed(tmp_path: Any, registry: Registry) -> None:
    assert "gap" in KINDS["slices"].defaults
    assert slices(tmp_path, registry) == (Component("gap", {"region": "world"}),)
    assert slices(tmp_path, registry, "slices=null") == (Component("gap", {"region": "world"}),)
    assert slices(tmp_path, registry, "slices=[]") == ()
    assert slices(tmp_path, demo_registry()) == ()
    chosen = slices(tmp_path, registry, "slices=[country, {name: country, region: north}]")
    assert chosen == (Component("country", {"region": "world"}), Component("country", {"region": "north"}))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("gap", r'slices: should be a list such as \[history_length, popularity\], or \[\] for none, got "gap"'),
        ("[contry]", r"slices.0: unknown slice 'contry'; did you mean country\?"),
        ("[{name: country, regio: x}]", r"slices.0.regio: unknown option; did you mean region\?"),
        ("[country, country]", "slices.1: country is already given, as slices.0"),
        ("[{name: country, region: ''}]", "slices.0: region: should not be empty"),
        (
            "[{name: country, region: 'a b'}]",
            "slices.0: slice 'country': its attribute name should be text such as gap",
        ),
        ("[nameless]", "slices.0: slice 'nameless': its attribute name should be text"),
        ("[3]", "slices.0: should be a name or a mapping"),
    ],
)
def test_what_cannot_be_a_slice_is_one_message(tmp_path: Any, registry: Registry, value: str, said: str) -> None:
    path = write_suite(tmp_path)
    with pytest.raises(GRBenchError, match=rf"^{path}: {said}"):
        load_suite(path, [f"slices={value}"]).cells(registry)


def test_a_broken_slice_is_the_error_of_all_cells(tmp_path: Any, registry: Registry) -> None:
    found = load_suite(write_suite(tmp_path), ["slices=[lost]"]).cells(registry)
    assert all("slices.0: slice 'lost' of slice-plugins 1.0 is broken" in (cell.error or "") for cell in found)


def test_a_mistake_in_the_file_is_said_with_its_place(tmp_path: Any) -> None:
    assert failure(tmp_path, text=SUITE.format(methods="{a: {encoder: dense}}") + "slices: {gap: 1}\n").startswith(
        "slices: should be a list"
    )


def test_the_json_schema_has_slices_with_their_options(registry: Registry) -> None:
    schema = suite_schema(registry)
    assert schema["properties"]["slices"]["items"] == {"$ref": "#/$defs/slices"}
    names, country, *_ = schema["$defs"]["slices"]["oneOf"]
    assert names == {"enum": ["country", "gap", "nameless"]}
    assert country["properties"]["region"]["default"] == "world"
