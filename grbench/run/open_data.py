"""The data that rankings are scored by, opened in this process: dataset, store and split."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grbench.cache import cache_folder
from grbench.interfaces import EvaluationProtocol, optional
from grbench.run.data_source import build_dataset
from grbench.run.prepare import split_store
from grbench.types import Progress

if TYPE_CHECKING:
    from grbench.data.split import Split
    from grbench.data.store import Store
    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry
    from grbench.run.progress import PlainProgress

TICK_SECONDS = 0.5


@dataclass(frozen=True)
class OpenData:
    """A dataset's store and its split by a protocol. digest: of the source's content."""

    digest: str
    store: Store
    split: Split


def open_data(
    dataset: Component,
    protocol: Component,
    registry: Registry,
    *,
    cache: Path | None,
    report: Progress,
    copying: Progress | None = None,
) -> OpenData:
    """Opens the store in the cache, which is built first where it is not there, and splits it. copying: as of
    `build_dataset`. Raises DataError where the source is missing or malformed, or the protocol does not fit it."""
    from grbench.run.shared_store import shared_store

    source = build_dataset(registry, dataset, where="dataset", cache=cache, copying=copying)
    digest = str(source.digest())
    optional(registry.build("protocols", protocol, where="protocol"), EvaluationProtocol.check)(source)
    store = shared_store(source, dataset, registry, cache=cache_folder(cache), report=report, copying=copying)
    report("splitting users", 0, None)
    return OpenData(digest, store, split_store(store, protocol, registry))


def reporting_to(progress: PlainProgress) -> Progress:
    """Tells `progress` how far a task of this process is, and lets it redraw about twice a second."""
    drawn = 0.0

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal drawn
        progress.listen({"event": "prepare", "what": what, "done": done, "total": total or 0})
        if (now := time.monotonic()) - drawn >= TICK_SECONDS:
            drawn = now
            progress.tick()

    return report
