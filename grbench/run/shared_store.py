"""The store of a dataset in the cache, which processes that ask for it at once build once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from grbench.results.checksums import content_checksum
from grbench.run.neighbours import Neighbours
from grbench.run.sharing import alone
from grbench.types import Progress

if TYPE_CHECKING:
    from grbench.data.store import Store
    from grbench.interfaces import Dataset
    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry


def shared_store(
    source: Dataset,
    dataset: Component,
    registry: Registry,
    *,
    cache: Path,
    report: Progress,
    wait: Callable[[str], object] | None = None,
) -> Store:
    """The store, built where the cache does not have it. source: what `dataset` gives. wait: is told who builds it
    meanwhile; None = `report` is.

    Raises DataError where the source is missing or malformed.
    """
    from grbench.data.store_writer import build_store

    options = content_checksum(json.loads(json.dumps(dataset.options, default=str)))
    name = f"{dataset.name}-{options[:16]}"
    with (
        alone(cache, name, wait or (lambda holder: report(f"waiting for {holder}", 0, None))),
        Neighbours(cache),
    ):
        return build_store(
            source,
            name=dataset.name,
            cache=cache,
            contents=registry.file_contents("datasets", dataset, "dataset"),
            report=report,
        )
