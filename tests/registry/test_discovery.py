"""What is found, what is broken and says so, and whose interfaces fit."""

from __future__ import annotations

import importlib
import sys
from typing import ClassVar

import click
import pytest
from demo_plugins import Contrastive, DemoPlugins, Dense, Exact, Generative, demo_registry, generative

from grbench.errors import PluginError, SuiteError
from grbench.hookspecs import hookimpl
from grbench.interfaces import Decoder, Embedder
from grbench.registry.component import Component
from grbench.registry.discovery import BrokenPluginError, Registry, interface_class, missing_interfaces
from grbench.registry.options import describe


class Reranker:
    needs: ClassVar[tuple[type, ...]] = (Embedder, Decoder)


class One:
    """A package with one encoder, registered as the test says."""

    def __init__(self, name="one", factory=Dense):
        self.name, self.factory = name, factory

    @hookimpl
    def register_encoders(self, register):
        register(self.name, self.factory)


def with_one(*arguments) -> Registry:
    registry = demo_registry()
    registry.add("one", "another-package", "0.3", lambda: One(*arguments))
    return registry


def test_a_factory_is_found_by_kind_and_name_with_who_brought_it():
    plugin = demo_registry().get("encoders", "dense")
    assert plugin.factory is Dense
    assert (plugin.distribution, plugin.version) == ("demo-plugins", "1.2")
    assert demo_registry().names("encoders") == ["dense", "generative", "lost"]
    assert [plugin.name for plugin in demo_registry().plugins("losses")] == ["contrastive", "next_code"]
    assert len(demo_registry().plugins()) == 17


def test_nothing_is_imported_before_it_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "asked_for.py").write_text("class Encoder:\n    def __init__(self, data, codes): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = with_one("late", "asked_for:Encoder")
    assert "late" in registry.names("encoders")
    assert "asked_for" not in sys.modules
    assert registry.get("encoders", "late").factory is sys.modules["asked_for"].Encoder


def test_an_unknown_name_gets_the_nearest_or_all():
    with pytest.raises(PluginError, match=r"^unknown encoder 'dens'; did you mean dense\?$"):
        demo_registry().get("encoders", "dens")
    elsewhere = "one of another package has to be installed where this Python is"
    with pytest.raises(PluginError, match=rf"^unknown loss 'xyz'; there are: contrastive, next_code; {elsewhere} \(/"):
        demo_registry().get("losses", "xyz")


def test_what_cannot_be_imported_is_listed_with_its_reason_and_the_rest_works():
    registry = demo_registry()
    (broken,) = registry.broken
    assert (broken.kind, broken.name, broken.distribution) == ("encoders", "lost", "demo-plugins")
    assert broken.reason == "ModuleNotFoundError: No module named 'demo_plugins_that_are_not_there'"
    assert [plugin.name for plugin in registry.plugins("encoders")] == ["dense", "generative"]
    with pytest.raises(BrokenPluginError, match=r"'lost' of demo-plugins 1\.2 is broken: ModuleNotFoundError"):
        registry.get("encoders", "lost")
    assert registry.origin("encoders", "lost") == ("demo-plugins", "1.2")


def test_a_signature_without_options_makes_a_broken_plug_in():
    def factory(data, codes, **config): ...

    registry = with_one("bag", factory)
    with pytest.raises(BrokenPluginError, match=r"name its options instead of taking \*\*config"):
        registry.get("encoders", "bag")


def test_an_entry_point_that_fails_registers_nothing_and_says_why():
    class HalfWay:
        @hookimpl
        def register_encoders(self, register):
            register("first", Dense)
            raise ZeroDivisionError("in the hook")

    class NoSuchArgument:
        @hookimpl
        def register_encoders(self, registre): ...

    def explode():
        raise ImportError("no such library")

    registry = demo_registry()
    registry.add("half", "half-way", "1", HalfWay)
    registry.add("argument", "argument", "1", NoSuchArgument)
    registry.add("gone", "gone", "1", explode)
    reasons = {broken.name: broken.reason for broken in registry.broken if broken.kind == "entry point"}
    assert reasons["half"] == "ZeroDivisionError: in the hook"
    assert reasons["gone"] == "ImportError: no such library"
    assert "registre" in reasons["argument"]
    with pytest.raises(PluginError, match=r"belongs to half-way 1, which is broken: ZeroDivisionError"):
        registry.get("encoders", "first")


@pytest.mark.parametrize(
    ("name", "factory", "reason"),
    [
        ("a@b", Dense, "'a@b' is not a valid name"),
        ("a", "demo_plugins.Dense", "should be package.module:attribute"),
        ("a", 3, "3 is not callable"),
    ],
)
def test_a_registration_that_makes_no_sense_breaks_its_package(name, factory, reason):
    assert any(reason in broken.reason for broken in with_one(name, factory).broken)


def test_a_name_registered_twice_names_both_distributions():
    with pytest.raises(PluginError) as raised:
        with_one("dense")
    assert "encoders 'dense' is registered twice" in str(raised.value)
    assert "demo-plugins 1.2" in str(raised.value)
    assert "another-package 0.3" in str(raised.value)


def test_build_binds_options_after_the_run_time_objects():
    class Keeps:
        def __init__(self, data, codes, *, width: int = 1, sizes: tuple[int, ...] = ()) -> None:
            self.got = data, codes, width, sizes

    registry = with_one("keeps", Keeps)
    assert registry.build("encoders", Component("keeps", {"sizes": [2]}), "data", "codes").got == (
        "data",
        "codes",
        1,
        (2,),
    )
    assert registry.build("encoders", "keeps", None, None).got == (None, None, 1, ())
    misspelt = Component("keeps", {"widht": 2})
    with pytest.raises(SuiteError, match=r"^encoder keeps\.widht: unknown option; did you mean width\?$"):
        registry.build("encoders", misspelt, None, None)
    with pytest.raises(SuiteError, match=r"^x: methods\.a\.encoder\.widht: unknown option; did you mean width\?$"):
        registry.build("encoders", misspelt, None, None, where="x: methods.a.encoder")


def test_faces_are_read_off_the_class_or_the_return_annotation():
    assert interface_class(Dense) is Dense
    assert interface_class(generative) is Generative
    with pytest.raises(PluginError, match="annotate the class that it returns"):
        interface_class(lambda: None)
    assert missing_interfaces(Exact.needs, Dense) == {}
    assert missing_interfaces(Contrastive.needs, generative) == {Embedder: ("embed", "embed_histories", "embed_items")}
    assert missing_interfaces(Reranker.needs, Dense) == {Decoder: ("code_logits", "start", "step")}


def test_a_face_half_shown_is_missing_what_is_not():
    class Half:
        def embed(self, batch, items): ...

        embed_items = None

    assert missing_interfaces((Embedder,), Half) == {Embedder: ("embed_histories", "embed_items")}


def test_commands_are_added_and_a_broken_one_costs_only_itself():
    class Commands(DemoPlugins):
        @hookimpl
        def register_commands(self, cli):
            cli.add_command(click.Command("hello"))

    class Broken:
        @hookimpl
        def register_commands(self, cli):
            raise ImportError("no such library")

    registry = Registry()
    registry.add("broken", "broken", "1", Broken)
    registry.add("commands", "commands", "1", Commands)
    group = click.Group()
    registry.add_commands(group)
    assert list(group.commands) == ["hello"]
    assert [(broken.kind, broken.name) for broken in registry.broken if broken.kind == "commands"] == [
        ("commands", "broken")
    ]


def test_discovery_reads_only_our_entry_point_group(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(
        "from grbench.hookspecs import hookimpl\n\n"
        "@hookimpl\ndef register_metrics(register):\n    register('stranger', 'stranger:Metric')\n"
    )
    metadata = tmp_path / "stranger-2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 2.0\n")
    (metadata / "entry_points.txt").write_text("[grbench]\nx = stranger\n[grbench.other]\ny = nowhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    registry = Registry.load()
    assert registry.origin("metrics", "stranger") == ("stranger", "2.0")
    assert {"causal_transformer", "most_popular"} <= set(registry.names("encoders"))
    assert not [broken for broken in registry.broken if broken.kind == "entry point"]


def test_every_reference_plug_in_can_be_imported_and_has_its_options_documented():
    registry = Registry.load()
    assert not [broken for broken in registry.broken if broken.distribution == "grbench"]
    ours = [plugin for plugin in registry.plugins() if plugin.distribution == "grbench"]
    options = {
        (plugin.kind, plugin.name, option.name): option for plugin in ours for option in describe(plugin.factory)
    }
    assert options
    assert not [key for key, option in options.items() if not option.doc]
    # What need not be asked of the user has a default.
    assert {key[2] for key, option in options.items() if option.default == "required"} <= {"path", "k"}
