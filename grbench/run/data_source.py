"""The dataset of a cell, whose data may lie elsewhere: a path that is written as a URL is copied to the cache, and a
folder that is a prepared store stands for the source that it was made of."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench.cache import cache_folder
from grbench.data.store import STORE_FILE
from grbench.interfaces import Dataset
from grbench.registry.component import Component
from grbench.registry.options import flat_values
from grbench.run.prepared_store import PreparedStore, open_prepared
from grbench.run.progress import PlainProgress, progress_for
from grbench.run.sharing import alone
from grbench.storage.copying import copied_path, copy, is_copied
from grbench.storage.listing import FileListing, list_place
from grbench.storage.place import is_url, place_of
from grbench.types import Progress

if TYPE_CHECKING:
    from grbench.registry.discovery import Registry

MEGABYTE = 1_000_000


def build_dataset(
    registry: Registry,
    component: Component,
    *,
    where: str | None = None,
    cache: Path | None = None,
    copying: Progress | None = None,
) -> Dataset | PreparedStore:
    """The dataset, on the local copy of data that lie elsewhere; of a prepared store only the descriptions are read.

    cache: for copies; copying: is called with bytes, None = progress is shown on stderr. Raises what
    `Registry.build` raises, and DataError where a place cannot be read.
    """
    local = dict[str, str]()
    for name, path in data_paths(registry, component, where).items():
        if is_url(path):
            listing = list_place(place_of(path))
            if STORE_FILE in listing:
                return open_prepared(listing, component, registry)
            local[name] = str(local_copy(listing, cache_folder(cache), copying))
        elif (path.expanduser() / STORE_FILE).is_file():
            return open_prepared(list_place(place_of(path)), component, registry)
    dataset: Dataset = registry.build(
        "datasets", Component(component.name, {**component.options, **local}), where=where
    )
    return dataset


def data_paths(registry: Registry, component: Component, where: str | None = None) -> dict[str, Path]:
    """{option: path} of a dataset's options that say where its data are; files whose content is itself an option of the
    identity are none of them. Raises as `Registry.build` does."""
    where = where or f"dataset {component.name}"
    factory = registry.get("datasets", component.name, imported=True).factory
    contents = registry.file_contents("datasets", component, where)
    values = flat_values(factory, component.options, where)
    return {name: value for name, value in values.items() if isinstance(value, Path) and name not in contents}


def local_copy(
    listing: FileListing,
    cache: Path,
    copying: Progress | None = None,
    wait: Callable[[str], object] | None = None,
) -> Path:
    """The copy of what is listed, which processes that ask for it at once make once. wait: is told who makes it."""
    if is_copied(cache, listing):
        return copied_path(cache, listing)
    with (
        _shown(copying) as report,
        alone(
            cache,
            f"copy-{listing.digest}",
            wait or (lambda holder: report(f"waiting for {holder}, which copies {listing.place.url}", 0, None)),
        ),
    ):
        if not is_copied(cache, listing):
            copy(cache, listing, report)
    return copied_path(cache, listing)


def copying_events(send: Callable[..., object]) -> Progress:
    """A Progress in bytes that sends the keywords of an event: what, megabytes `done` and in `total`, and the rate."""
    began, first = time.monotonic(), None

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal began, first
        if first is None:
            began, first = time.monotonic(), done
        rate = (done - first) / MEGABYTE / max(time.monotonic() - began, 1e-3)
        send(what=what, done=done // MEGABYTE, total=(total or 0) // MEGABYTE, megabytes_per_second=rate)

    return report


def copying_to(progress: PlainProgress) -> Progress:
    """Shows `progress` how far a copy is, and lets it redraw about twice a second."""
    drawn = 0.0

    def send(**facts: Any) -> None:
        nonlocal drawn
        progress.listen({"event": "prepare", **facts})
        if (now := time.monotonic()) - drawn >= 0.5:
            drawn = now
            progress.tick()

    return copying_events(send)


@contextlib.contextmanager
def _shown(copying: Progress | None) -> Iterator[Progress]:
    if copying is not None:
        yield copying
        return
    from rich.console import Console

    progress = progress_for(Console(stderr=True))
    try:
        progress.start("data", 0)
        yield copying_to(progress)
    finally:
        progress.close()
