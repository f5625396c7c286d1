"""Where a command's data comes from: a dataset, a suite's dataset or a store, by path and command-line options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grbench.errors import DataError, SuiteError
from grbench.interfaces import Dataset
from grbench_reference.commands.console import progress_report

if TYPE_CHECKING:
    from rich.console import Console

    from grbench.data.store import Store
    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry

cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the stores  [default: $GRBENCH_CACHE or ~/.cache/grbench]",
)
dataset_option = click.option(
    "--dataset", metavar="NAME", help="The dataset plug-in; by default the first that recognises PATH."
)


def is_store(path: Path) -> bool:
    """Whether the folder at `path` is a store."""
    from grbench.data.store import STORE_FILE

    return (path / STORE_FILE).is_file()


def locate(registry: Registry, path: Path, dataset: str | None, overrides: Sequence[str]) -> Component:
    """The dataset at `path`, or that of the suite at `path`, with its options.

    overrides: KEY=VALUE, options of the dataset or keys of the suite. Raises SuiteError where `dataset` names a plug-in
    beside a suite, DataError where no plug-in recognises `path` or the dataset lacks what the suite's protocol needs.
    """
    from grbench.interfaces import EvaluationProtocol, optional
    from grbench.registry.component import Component
    from grbench.suite.installed import is_suite
    from grbench.suite.suite import load_suite

    if not is_suite(path):
        recognised = recognise(registry, path, dataset)
        return Component(recognised.name, {**recognised.options, **parse_overrides(overrides)})
    if dataset is not None:
        raise SuiteError(f"{path}: is a suite, which names its dataset; leave --dataset away")
    cell = load_suite(path, list(overrides)).cells(registry)[0]
    protocol = registry.build("protocols", cell.protocol)
    optional(protocol, EvaluationProtocol.check)(registry.build("datasets", cell.dataset))
    return cell.dataset


def recognise(registry: Registry, path: Path, dataset: str | None) -> Component:
    """The dataset plug-in that reads `path`, named or recognised; raises DataError where none recognises it."""
    from grbench.registry.component import Component
    from grbench_reference.datasets.download.release import describe_missing

    if dataset is not None:
        return Component(dataset, {"path": str(path)})
    if not path.exists() and path.suffix:
        raise DataError(f"{path}: no such file; give a log of interactions, or a release's folder")
    if not path.exists():
        raise DataError(describe_missing(path))
    installed = registry.plugins("datasets")
    for plugin in installed:
        if getattr(plugin.factory, "recognises", Dataset.recognises)(path):
            return Component(plugin.name, {"path": str(path)})
    names = ", ".join(plugin.name for plugin in installed)
    raise DataError(f"{path}: none of the dataset plug-ins ({names}) recognises it; name one with --dataset")


def build_dataset_store(registry: Registry, source: Component, cache: Path | None, console: Console) -> Store:
    """The store of a dataset, built where the cache does not have it yet."""
    from grbench.cache import cache_folder
    from grbench.run.shared_store import shared_store

    dataset = registry.build("datasets", source, where="dataset")
    with progress_report(console) as report:
        return shared_store(dataset, source, registry, cache=cache_folder(cache), report=report)


def open_or_build_store(
    path: Path, dataset: str | None, overrides: Sequence[str], cache: Path | None, console: Console
) -> Store:
    """The store at `path`, or that of the dataset or the suite's dataset at `path`."""
    from grbench.data.store import Store
    from grbench.registry.discovery import Registry

    if is_store(path):
        return Store.open(path)
    registry = Registry.load()
    return build_dataset_store(registry, locate(registry, path, dataset, overrides), cache, console)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts -> {key: value}, values read as YAML; raises click.BadParameter."""
    from grbench.suite.file import parse_yaml

    options = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{override}: should be KEY=VALUE, such as embeddings=[81]", param_hint="--set")
        options[key] = parse_yaml(value, f"--set {override}")
    return options
