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
    from grbench.storage.listing import FileListing

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
    """Whether the folder at `path` is a store on this machine."""
    from grbench.data.store import STORE_FILE

    return (path / STORE_FILE).is_file()


def shown_path(path: Path) -> str:
    """A path or URL as the user wrote it."""
    from grbench.storage.place import url_text

    return url_text(path)


def locate(registry: Registry, path: Path, dataset: str | None, overrides: Sequence[str]) -> Component:
    """The dataset at `path`, or that of the suite at `path`, with its options.

    overrides: KEY=VALUE, options of the dataset or keys of the suite. Raises SuiteError where `dataset` names a plug-in
    beside a suite, DataError where no plug-in recognises `path` or the dataset lacks what the suite's protocol needs.
    """
    from grbench.interfaces import EvaluationProtocol, optional
    from grbench.registry.component import Component
    from grbench.run.data_source import build_dataset
    from grbench.suite.installed import is_suite
    from grbench.suite.suite import load_suite

    if not is_suite(path):
        recognised = recognise(registry, path, dataset)
        return Component(recognised.name, {**recognised.options, **parse_overrides(overrides)})
    if dataset is not None:
        raise SuiteError(f"{path}: is a suite, which names its dataset; leave --dataset away")
    cell = load_suite(path, list(overrides)).cells(registry)[0]
    protocol = registry.build("protocols", cell.protocol)
    optional(protocol, EvaluationProtocol.check)(build_dataset(registry, cell.dataset))
    return cell.dataset


def recognise(registry: Registry, path: Path, dataset: str | None) -> Component:
    """The dataset plug-in that reads `path`, named or recognised; raises DataError where none recognises it."""
    from grbench.registry.component import Component
    from grbench.storage.listing import list_place
    from grbench.storage.place import is_url, place_of
    from grbench_reference.datasets.download.release import describe_missing

    if is_url(path):
        return _recognise_elsewhere(registry, path, dataset)
    if is_store(path):
        return _of_store(list_place(place_of(path)), dataset)
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


def _recognise_elsewhere(registry: Registry, path: Path, dataset: str | None) -> Component:
    """As `recognise`, for a URL: of a store by its descriptions, of other data by their local copy."""
    from grbench.cache import cache_folder
    from grbench.data.store import STORE_FILE
    from grbench.registry.component import Component
    from grbench.run.data_source import local_copy
    from grbench.storage.listing import list_place
    from grbench.storage.place import place_of

    listing = list_place(place_of(path))
    if STORE_FILE in listing:
        return _of_store(listing, dataset)
    if dataset is None:
        dataset = recognise(registry, local_copy(listing, cache_folder()), None).name
    return Component(dataset, {"path": listing.place.url})


def _of_store(listing: FileListing, dataset: str | None) -> Component:
    """The dataset that a store was made of."""
    from grbench.registry.component import Component
    from grbench.run.prepared_store import read_origin

    origin = read_origin(listing)
    return Component(dataset or origin.dataset, {**origin.options, "path": listing.place.url})


def build_dataset_store(registry: Registry, source: Component, cache: Path | None, console: Console) -> Store:
    """The store of a dataset, built or copied where the cache does not have it yet."""
    from grbench.cache import cache_folder
    from grbench.run.data_source import build_dataset
    from grbench.run.prepared_store import PreparedStore
    from grbench.run.shared_store import shared_store

    with progress_report(console, in_bytes=True) as report:
        dataset = build_dataset(registry, source, where="dataset", cache=cache, copying=report)
    with progress_report(console, in_bytes=isinstance(dataset, PreparedStore)) as report:
        return shared_store(dataset, source, registry, cache=cache_folder(cache), report=report, copying=report)


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


def pushable_store(
    path: Path, dataset: str | None, overrides: Sequence[str], cache: Path | None, console: Console
) -> tuple[Path, str]:
    """The folder of the store, which says what it was made of, and the dataset's option that takes it in place of the
    source. Raises DataError where the dataset has no such option, or an earlier grbench has built the store."""
    from grbench.registry.discovery import Registry
    from grbench.run.data_source import data_paths
    from grbench.run.prepared_store import read_origin
    from grbench.storage.listing import list_place
    from grbench.storage.place import place_of

    registry = Registry.load()
    component = locate(registry, path, dataset, overrides)
    options = data_paths(registry, component)
    if not options:
        raise DataError(f"{shown_path(path)}: the dataset {component.name} reads no files, so each machine can make it")
    folder = build_dataset_store(registry, component, cache, console).path
    read_origin(list_place(place_of(folder)))
    return folder, next(iter(options))


def own_files(path: Path) -> Path:
    """A dataset's folder or file; raises DataError where it is not on this machine."""
    from grbench.suite.installed import is_suite

    if not path.exists() or is_suite(path):
        raise DataError(f"{shown_path(path)}: --source pushes a dataset's folder or file that is on this machine")
    return path


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
