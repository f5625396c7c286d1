"""Where runs write: the cache of prepared data, and the working folder, which results go to by default."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from grbench.cache import cache_folder
from grbench.doctor.diagnosis import Diagnosis
from grbench.report.format import size_text
from grbench.temporary import beside

LITTLE_SPACE = 1 << 30
"""Bytes below which a dataset of a usual size does not fit."""


def cache(folder: Path | None = None) -> Diagnosis:
    """The folder of prepared data: how much is in it, and how much fits."""
    folder = cache_folder(folder)
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    held, free = sum(_sizes(folder)), shutil.disk_usage(existing).free
    text = f"{folder}, {size_text(held)} in it, {size_text(free)} free on its disk"
    facts = {"bytes": held, "free_bytes": free, "by_environment": bool(os.environ.get("GRBENCH_CACHE"))}
    another = "set GRBENCH_CACHE to a folder that can be written, or give run --cache DIR"
    if not existing.is_dir():
        return Diagnosis("cache", f"{existing} is a file, no folder", "stop", another, facts)
    try:
        with beside(existing / "writable") as probe:
            probe.touch()
    except OSError as error:
        return Diagnosis("cache", f"{folder} cannot be written ({error.strerror})", "stop", another, facts)
    if free < LITTLE_SPACE:
        remedy = "free some, or set GRBENCH_CACHE to a folder on a larger disk"
        return Diagnosis("cache", text, "note", remedy, facts)
    return Diagnosis("cache", text, facts=facts)


def working_folder() -> Diagnosis | None:
    """Where results go unless told otherwise; None where nothing is to be said of it."""
    results = Path("results")
    if os.access(results if results.exists() else Path.cwd(), os.W_OK):
        return None
    return Diagnosis("results", "the working folder cannot be written", "note", "give run another --results DIR")


def _sizes(folder: Path) -> Iterator[int]:
    """Of the files below, as far as they can be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    yield from _sizes(Path(entry.path))
                else:
                    yield entry.stat(follow_symlinks=False).st_size
