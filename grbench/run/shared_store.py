"""The store of a dataset in the cache, which processes that ask for it at once build, or copy, once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from grbench.results.checksums import content_checksum
from grbench.run.data_source import local_copy
from grbench.run.neighbours import Neighbours
from grbench.run.prepared_store import PreparedStore, write_origin
from grbench.run.sharing import alone
from grbench.storage.copying import copied_path, is_copied
from grbench.storage.place import is_url
from grbench.types import Progress

if TYPE_CHECKING:
    from grbench.data.store import Store
    from grbench.interfaces import Dataset
    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry


def shared_store(
    source: Dataset | PreparedStore,
    dataset: Component,
    registry: Registry,
    *,
    cache: Path,
    report: Progress,
    wait: Callable[[str], object] | None = None,
    copying: Progress | None = None,
) -> Store:
    """The store, built or copied where the cache does not have it. source: what `build_dataset` gives for `dataset`.
    wait: is told who makes it meanwhile, None = `report` is; copying: as of `build_dataset`.

    Raises DataError where the source is missing or malformed, or a prepared store cannot be copied.
    """
    from grbench.data.store import Store
    from grbench.data.store_writer import build_store

    if isinstance(source, PreparedStore):
        place = source.listing.place
        return Store.open(local_copy(source.listing, cache, copying, wait) if is_url(place.url) else Path(place.path))
    options = content_checksum(json.loads(json.dumps(dataset.options, default=str)))
    name = f"{dataset.name}-{options[:16]}"
    with (
        alone(cache, name, wait or (lambda holder: report(f"waiting for {holder}", 0, None))),
        Neighbours(cache),
    ):
        store = build_store(
            source,
            name=dataset.name,
            cache=cache,
            contents=registry.file_contents("datasets", dataset, "dataset"),
            report=report,
        )
        with contextlib.suppress(OSError):  # a cache that cannot be written; the store can be used all the same
            write_origin(store.path, source, dataset, registry)
    return store


def ready_store(
    source: Dataset | PreparedStore, dataset: Component, registry: Registry, *, cache: Path, digest: str
) -> Path | None:
    """The folder of the store where the cache has it; nothing is built or copied. digest: of the source."""
    from grbench.data.store import STORE_FILE
    from grbench.data.store_writer import store_digest, store_folder

    if isinstance(source, PreparedStore):
        listing = source.listing
        if not is_url(listing.place.url):
            return Path(listing.place.path)
        return copied_path(cache, listing) if is_copied(cache, listing) else None
    contents = registry.file_contents("datasets", dataset, "dataset")
    folder = store_folder(cache, dataset.name, store_digest(type(source), digest, contents))
    return folder if (folder / STORE_FILE).is_file() else None
