"""What a node of a cluster does before a cell: it makes sure that it would run the same code on the same data.

The store is built or copied there where the node's cache does not have it, by one cell of all that begin there at
once.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from grbench.cache import cache_folder
from grbench.data.store import STORE_FILE
from grbench.errors import GRBenchError, RunError
from grbench.registry.discovery import Registry
from grbench.results.identity import cell_identity
from grbench.results.record import Record
from grbench.run.backends.child_process import ChildMessages
from grbench.run.data_source import build_dataset, copying_events
from grbench.run.prepare import REFUSED, place_of_store
from grbench.run.shared_store import shared_store
from grbench.suite.suite import Cell


def main(job: Mapping[str, Any], events: ChildMessages) -> int:
    """The child; exit status 2 where the cell cannot be run there, and the event `refused` says why."""
    try:
        check_node(job, events)
    except GRBenchError as error:
        events("refused", kind=type(error).__name__, message=f"node {platform.node()}: {error}")
        return REFUSED
    return 0


def check_node(job: Mapping[str, Any], events: ChildMessages) -> None:
    """Raises RunError where this node's code or data are others than those that the cell was planned with, DataError
    where the data are not there."""
    cell, registry = Cell.from_json(job["cell"]), Registry.load()
    planned = Record.from_json(job["blank"], "the job").identity
    here = json.loads(json.dumps(cell_identity(cell, registry, planned["training"]["dataset"]["digest"])))
    if differing := [key for key in here if here[key] != planned[key]]:
        parts = ", ".join(list(_differences(planned, {key: here[key] for key in differing}))[:3])
        raise RunError(
            f"has other code than the machine that the run was started on ({parts}); "
            "install the same versions of grbench, its plug-ins and their libraries on every node"
        )
    cache = cache_folder(Path(job["cache"]) if job["cache"] else None)
    if (cache / job["store"] / STORE_FILE).is_file():
        return
    copying = copying_events(partial(events, "prepare"))
    store = shared_store(
        build_dataset(registry, cell.dataset, cache=cache, copying=copying),
        cell.dataset,
        registry,
        cache=cache,
        report=lambda what, done, total: events("prepare", what=what, done=done, total=total),
        wait=lambda holder: events("phase", name=f"waiting: {holder}"),
        copying=copying,
    )
    if place_of_store(store.path, cache) != job["store"]:
        raise RunError(
            f"the files of dataset {cell.dataset.name} are others there than where the run was prepared; copy the same "
            "ones to every node, or put them on a file system that all nodes share"
        )


def _differences(planned: Any, here: Any, place: str = "") -> Iterator[str]:
    """Where the two differ, as `training.core.data`."""
    if isinstance(planned, dict) and isinstance(here, dict):
        for key in {**planned, **here}:
            if planned.get(key) != here.get(key):
                yield from _differences(planned.get(key), here.get(key), f"{place}.{key}" if place else key)
    else:
        yield place
