"""A cached signature equals the factory's own, and is discarded once the source may have changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grbench.errors import GRBenchError
from grbench.interfaces import Decoder, Embedder
from grbench.registry.discovery import BrokenPluginError, Registry, interface_class, missing_interfaces
from grbench.registry.options import describe
from grbench.registry.signature_cache import CachedFactory
from grbench.registry.source_hash import clear_caches, library_versions, source_hash
from grbench.suite.suite import load_suite

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.yaml"))
(QUICKSTART,) = (suite for suite in SUITES if suite.stem == "quickstart")
REAL = Registry.load()
PLUGINS = [(plugin.kind, plugin.name) for plugin in REAL.plugins() if plugin.distribution == "grbench"]

STRANGER = """
from typing import Annotated
from pydantic import AfterValidator
from grbench import hookimpl
from grbench.interfaces import Embedder

def even(number: int) -> int:
    if number % 2:
        raise ValueError("should be even")
    return number

class Pairs:
    needs = (Embedder,)
    def __init__(self, data, codes, *, count: int = 2) -> None: ...

class Checked:
    needs = ()
    def __init__(self, data, codes, *, count: Annotated[int, AfterValidator(even)] = 2) -> None: ...
"""
HOOKS = """
from grbench import hookimpl

@hookimpl
def register_losses(register):
    register("pairs", "losses_of_others:Pairs")
    register("checked", "losses_of_others:Checked")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the signatures of all reference plug-ins."""
    folder = tmp_path_factory.mktemp("signatures")
    registry = Registry.load(signature_cache=folder)
    registry.plugins()
    registry.save_signatures()
    return folder


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The source of an installed package of two losses."""
    metadata = tmp_path / "package_of_others-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: package_of_others\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[grbench]\nothers = package_of_others\n")
    (metadata / "RECORD").write_text("package_of_others.py,,\nlosses_of_others.py,,\n")
    (tmp_path / "package_of_others.py").write_text(HOOKS)
    (tmp_path / "losses_of_others.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    clear_caches()
    yield tmp_path / "losses_of_others.py"
    forget()
    clear_caches()


def forget() -> None:
    """As in a new process: nothing of the package is imported."""
    for module in ("package_of_others", "losses_of_others"):
        sys.modules.pop(module, None)


def after(folder: Path, *names: str) -> Registry:
    """The registry of a command that comes after one that has asked for these losses."""
    registry = Registry.load(signature_cache=folder)
    for name in names:
        registry.get("losses", name)
    registry.save_signatures()
    forget()
    return Registry.load(signature_cache=folder)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_cached_signature_equals_the_factorys(folder: Path, kind: str, name: str) -> None:
    cached, real = Registry.load(signature_cache=folder).get(kind, name).factory, REAL.get(kind, name).factory
    assert isinstance(cached, CachedFactory)
    assert [option[:3] for option in describe(cached)] == [option[:3] for option in describe(real)]
    assert source_hash(cached) == source_hash(real)
    assert library_versions(cached) == library_versions(real)
    if kind in ("encoders", "losses", "retrievers"):
        assert missing_interfaces((Embedder, Decoder), cached) == missing_interfaces((Embedder, Decoder), real)
        assert getattr(interface_class(cached), "needs", None) == getattr(interface_class(real), "needs", None)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.stem)
def test_a_suite_has_the_same_cells(folder: Path, suite: Path) -> None:
    read = load_suite(suite)
    assert read.cells(Registry.load(signature_cache=folder)) == read.cells(REAL)


@pytest.mark.parametrize(
    "override",
    [
        "methods.transformer_bce.encoder.width=-1",
        "methods.transformer_bce.encoder.widht=32",
        "methods.transformer_bce.encoder.similarity=angle",
        "methods.transformer_bce.encoder.width=[1]",
        "methods.transformer_bce.loss=next_code",
        "methods.transformer_bce.retriever=beam",
        "methods.transformer_infonce.loss.negatives.uniform=-1",
        "methods.transformer_infonce.loss.negatives.unifrom=1",
        "methods.transformer_bce.optimizer.lr=fast",
    ],
)
def test_a_mistake_gets_the_same_message(folder: Path, override: str) -> None:
    said = []
    for registry in (REAL, Registry.load(signature_cache=folder)):
        with pytest.raises(GRBenchError) as raised:
            load_suite(QUICKSTART, [override]).cells(registry)
        said.append(str(raised.value))
    assert said[0] == said[1]


def test_a_suite_is_checked_without_torch_once_its_plug_ins_are_known(tmp_path: Path) -> None:
    script = (
        "import sys; from grbench.cli import main; status = main(sys.argv[1:]); "
        "print('torch' in sys.modules); sys.exit(status)"
    )

    def imports_torch(*arguments: str) -> bool:
        environment = {**os.environ, "GRBENCH_CACHE": str(tmp_path)}
        command = [sys.executable, "-c", script, *arguments]
        said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return said.splitlines()[-1] == "True"

    quickstart = str(QUICKSTART)
    assert imports_torch("plugins")
    assert not imports_torch("plugins")
    assert not imports_torch("suite", "validate", quickstart)
    assert not imports_torch("run", quickstart, "--dry-run", "--results", str(tmp_path / "results"))


def test_a_package_that_changes_is_imported_again(stranger: Path, tmp_path: Path) -> None:
    again = after(tmp_path / "cache", "pairs")
    assert isinstance(again.get("losses", "pairs").factory, CachedFactory)
    assert "losses_of_others" not in sys.modules
    assert again.build("losses", "pairs", None, None).needs == (Embedder,)  # what is built is the real one
    forget()
    stranger.write_text(STRANGER.replace("count: int = 2", "number: int = 3"))
    (option,) = describe(Registry.load(signature_cache=tmp_path / "cache").get("losses", "pairs").factory)
    assert (option.name, option.default) == ("number", "3")


def test_a_factory_whose_signature_cannot_be_cached_is_imported_each_time(stranger: Path, tmp_path: Path) -> None:
    again = after(tmp_path / "cache", "pairs", "checked")
    assert isinstance(again.get("losses", "pairs").factory, CachedFactory)
    assert not isinstance(again.get("losses", "checked").factory, CachedFactory)


def test_a_cached_plug_in_that_breaks_is_a_broken_one(stranger: Path, tmp_path: Path) -> None:
    again = after(tmp_path / "cache", "pairs")
    stranger.unlink()
    with pytest.raises(BrokenPluginError, match="No module named 'losses_of_others'"):
        again.build("losses", "pairs", None, None)


@pytest.mark.parametrize("content", ["", "{not json", "[]", "{}"])
def test_a_malformed_cache_is_written_anew(stranger: Path, tmp_path: Path, content: str) -> None:
    after(tmp_path / "cache", "pairs")
    (file,) = (tmp_path / "cache").glob("signatures-*.json")
    file.write_text(content)
    assert isinstance(after(tmp_path / "cache", "pairs").get("losses", "pairs").factory, CachedFactory)


def test_a_cache_that_cannot_be_written_is_no_error(stranger: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert not isinstance(after(tmp_path / "cache", "pairs").get("losses", "pairs").factory, CachedFactory)
