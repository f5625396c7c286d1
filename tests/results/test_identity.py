"""What makes another experiment, and what does not."""

from __future__ import annotations

import importlib
import json

import pytest
from demo_plugins import Dense, TrainingOptions, demo_registry, write_suite

from grbench.errors import PluginError
from grbench.registry.source_hash import modules_hash, source_hash
from grbench.results import identity as digest
from grbench.results.identity import cell_digest, cell_identity
from grbench.suite import method
from grbench.suite.suite import load_suite


@pytest.fixture(autouse=True)
def demo_training(monkeypatch):
    monkeypatch.setattr(method, "training_options", lambda: TrainingOptions)


def digest_of(tmp_path, *overrides, data="d1", text=""):
    (cell,) = load_suite(write_suite(tmp_path, text), list(overrides)).cells(demo_registry(), ["a"], 1)
    return cell_digest(cell_identity(cell, demo_registry(), data))


def test_a_digest_is_16_hex_digits_of_the_identity_in_any_order():
    assert cell_digest({"a": 1, "b": {"c": [1.5, None], "d": "é"}}) == cell_digest(
        {"b": {"d": "é", "c": [1.5, None]}, "a": 1}
    )
    assert len(cell_digest({})) == 16
    assert int(cell_digest({}), 16) >= 0
    assert cell_digest({"a": 1}) != cell_digest({"a": 2})


@pytest.mark.parametrize(
    "override",
    [
        "methods.a.encoder.width=33",
        "methods.a.loss.temperature=0.06",
        "methods.a.loss.weight=2",
        "methods.a.optimizer=sgd",
        "methods.a.retriever.name=exact",
        "methods.a.filters=[history]",
        "methods.a.training.epochs=11",
        "metrics=[hits@20]",
        "protocol.pool=candidates",
        "dataset.size=11",
        "seeds=[7]",
    ],
)
def test_what_can_change_the_number_changes_the_digest(tmp_path, override):
    changed = digest_of(tmp_path, override)
    # The suite names `exact` already, by default: saying so is no change. All others are.
    assert (changed == digest_of(tmp_path)) == override.endswith("name=exact")


def test_other_data_is_another_experiment(tmp_path):
    assert digest_of(tmp_path, data="d2") != digest_of(tmp_path)


@pytest.mark.parametrize(
    "override",
    [
        "suite=renamed",
        "title=Another title",
        "dataset.path=moved/elsewhere",
        "methods.a.trackers=[log]",
        "methods.a.training.workers=8",
        "methods.a.encoder.dropout=0",
        "defaults.optimizer.lr=0.001",
        "baseline=a",
    ],
)
def test_what_cannot_does_not(tmp_path, override):
    assert digest_of(tmp_path, override) == digest_of(tmp_path)


def test_the_name_of_a_method_is_no_part_of_it(tmp_path):
    suite = load_suite(write_suite(tmp_path, methods="{a: {encoder: dense}, b: {extends: a}}"))
    first, second = suite.cells(demo_registry(), seeds=1)
    identities = [cell_identity(cell, demo_registry(), "d") for cell in (first, second)]
    assert identities[0] == identities[1]


def test_an_identity_is_json_and_names_every_plug_in_with_its_source(tmp_path):
    (cell,) = load_suite(write_suite(tmp_path)).cells(demo_registry(), ["a"], 1)
    identity = cell_identity(cell, demo_registry(), "d1")
    assert json.loads(json.dumps(identity)) == identity
    assert identity["dataset"] == {
        "name": "table",
        "options": {"size": 10},
        "plugin": {"distribution": "demo-plugins", "version": "1.2", "source": source_hash(Dense)},
        "digest": "d1",
    }
    assert identity["encoder"]["options"]["dropout"] == 0.0
    assert identity["protocol"]["options"]["min_events"] == 3
    for part in ("encoder", "retriever", "optimizer"):
        assert set(identity[part]) == {"name", "options", "plugin"}
    assert set(identity["tokenizer"]) == {"name", "options", "plugin", "content"}
    assert identity["losses"][0]["weight"] == 1.0
    assert identity["metrics"][0]["options"] == {"k": 10, "alpha": 1.0}
    assert "workers" not in identity["training"]


def test_a_broken_plug_in_still_has_an_identity(tmp_path):
    suite = load_suite(write_suite(tmp_path, methods="{a: {encoder: lost}}"))
    (cell,) = suite.cells(demo_registry(), seeds=1)
    identity = cell_identity(cell, demo_registry(), "d1")
    assert identity["encoder"]["plugin"] == {"distribution": "demo-plugins", "version": "1.2", "source": None}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package: model imports layers and, inside a function, lazy; nobody imports the rest but for type checkers."""
    folder = tmp_path / f"package_{abs(hash(str(tmp_path)))}"
    folder.mkdir()
    files = {
        "__init__": "from . import unused\n",
        "model": (
            "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nimport json\n"
            "from .layers import Layer\nif TYPE_CHECKING:\n    from . import types_only\n"
            "class Model:\n    def run(self):\n        from . import lazy\n"
        ),
        "layers": f"import {folder.name}.deep.inner\nclass Layer: ...\n",
        "lazy": "x = 1\n",
        "types_only": "x = 1\n",
        "unused": "x = 1\n",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "deep").mkdir()
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "deep" / "inner.py").write_text("from .. import model\n")  # a cycle
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("model", True),
        ("layers", True),
        ("lazy", True),
        ("deep/inner", True),
        ("unused", False),
        ("types_only", False),
        ("__init__", False),
    ],
)
def test_the_hash_covers_what_a_module_imports_from_its_own_package(package, file, counts):
    from grbench.registry.source_hash import _read

    model = importlib.import_module(f"{package.name}.model").Model
    before = source_hash(model)
    path = package / f"{file}.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    _read.cache_clear()
    assert source_hash(model) == before, "line ends are no change"
    path.write_text(path.read_text() + "# changed\n")
    _read.cache_clear()
    assert (source_hash(model) != before) == counts
    _read.cache_clear()


def test_the_hash_follows_other_plug_ins_packages(package, tmp_path, monkeypatch):
    """A stranger's encoder built on another package's changes when that one does."""
    from grbench.registry import source_hash as sources

    stranger = tmp_path / f"stranger_{package.name}.py"
    stranger.write_text(f"from {package.name}.layers import Layer\nclass Mine(Layer): ...\n")
    mine = type("Mine", (), {"__module__": stranger.stem})
    monkeypatch.setattr(sources, "plugin_packages", lambda: frozenset({package.name}))
    sources._read.cache_clear()
    before = source_hash(mine)
    layers = package / "layers.py"
    layers.write_text(layers.read_text() + "# changed\n")
    sources._read.cache_clear()
    assert source_hash(mine) != before
    sources._read.cache_clear()


def test_the_reference_package_is_followed_and_the_core_is_not():
    from grbench.registry.source_hash import plugin_packages

    assert "grbench_reference" in plugin_packages()
    assert "grbench" not in plugin_packages()


def test_a_factory_without_a_source_is_refused():
    made_here = type("Made", (), {"__module__": "nowhere_at_all"})
    with pytest.raises(PluginError, match="nowhere_at_all: its source cannot be found"):
        source_hash(made_here)


def test_of_the_core_what_computes_counts_and_what_keeps_books_does_not(monkeypatch):
    assert modules_hash(["grbench.types"]) != modules_hash(["grbench.types", "grbench.data.split"])
    seen = []
    monkeypatch.setattr(digest, "modules_hash", lambda modules, leave_out: seen.append((modules, leave_out)) or "")
    digest.core_hash.__wrapped__()
    ((modules, leave_out),) = seen
    assert {"grbench.training.loop", "grbench.evaluation.ranking", "grbench.data.split", "grbench.data.store"} <= set(
        modules
    )
    assert "grbench.errors" in leave_out
    assert not set(modules) & set(leave_out)
