"""Where a command's data comes from: a dataset, a suite's dataset or a store, by path and command-line options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grbench.errors import DataError
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


def recognise(registry: Registry, path: Path, dataset: str | None) -> Component:
    """The dataset plug-in that reads `path`, named or recognised; raises DataError where none recognises it."""
    from grbench.registry.component import Component
    from grbench_reference.datasets.download.release import describe_missing

    if dataset is not None:
        return Component(dataset, {"path": str(path)})
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
    from grbench.data.store_writer import build_store
    from grbench.run.prepare import store_cache

    dataset = registry.build("datasets", source, where="dataset")
    contents = registry.file_contents("datasets", source, "dataset")
    with progress_report(console) as report:
        return build_store(dataset, name=source.name, cache=store_cache(cache), contents=contents, report=report)


def open_or_build_store(
    path: Path, dataset: str | None, overrides: Sequence[str], cache: Path | None, console: Console
) -> Store:
    """The store at `path`, or that of the dataset or the suite's dataset at `path`."""
    from grbench.data.store import Store
    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry
    from grbench.suite.installed import is_suite
    from grbench.suite.suite import load_suite

    if is_store(path):
        return Store.open(path)
    registry = Registry.load()
    if is_suite(path):
        source = load_suite(path, list(overrides)).cells(registry)[0].dataset
    else:
        recognised = recognise(registry, path, dataset)
        source = Component(recognised.name, {**recognised.options, **parse_overrides(overrides)})
    return build_dataset_store(registry, source, cache, console)


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
