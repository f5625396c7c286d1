"""Checksums (sha256) of records and of the files beside them, which show that nothing was altered since it was written.

They tell edits and damage, not forgery: who alters a file and its checksum is not noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grbench.cache import cache_folder
from grbench.errors import RunError
from grbench.temporary import beside

CACHED_BYTES = 1 << 24
"""Of files from this size on, the checksums are kept for other processes."""

CACHE_FILE = "checksums.json"
CACHED_FILES = 2_000
"""The newest entries that are kept."""

SETTLED_SECONDS = 2.0
"""A file that was written to more recently is not cached: it might change again with the same time."""

Stamp = list[Any]
"""[size, time of change of content and of entry in ns, inode] of a file, and its checksum."""

_known: dict[str, Stamp] = {}


class AlteredError(RunError):
    """A record or a file beside it is not as it was written, or is gone."""


def content_checksum(values: Mapping[str, Any]) -> str:
    """Of JSON content, whatever the order of its keys and its layout."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_checksum(path: Path) -> str:
    """Of a file's content, which is read. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_checksum(path: Path) -> str:
    """The same, but a file is read only where its size, times or inode changed since this process last read it; a large
    one, since any process with the same cache folder did. Raises OSError."""
    before = path.stat()
    stamp: Stamp = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino]
    large = before.st_size >= CACHED_BYTES
    key = str(path.resolve())
    if large and key not in _known:
        _known.update(_kept() | _known)
    if _known.get(key, [])[:-1] == stamp:
        return str(_known[key][-1])
    checksum = file_checksum(path)
    if time.time() - max(before.st_mtime, before.st_ctime) > SETTLED_SECONDS:
        _known[key] = [*stamp, checksum]
        if large:
            _keep(key)
    return checksum


def refuse_altered(sentences: Iterable[str]) -> None:
    """Raises AlteredError with what is said of altered files, if anything: all of it as one message."""
    lines = list(dict.fromkeys(sentences))
    if lines:
        which = "it" if len(lines) == 1 else "them"
        raise AlteredError("\n".join([*lines, f"restore {which}, or have grbench run SUITE run these cells again"]))


def _kept() -> dict[str, Stamp]:
    """What other processes have found out; nothing where the file is missing or damaged."""
    try:
        content = json.loads((cache_folder() / CACHE_FILE).read_bytes())
        return {key: stamp for key, stamp in content.items() if isinstance(stamp, list) and len(stamp) == 5}
    except (OSError, ValueError, AttributeError):
        return {}


def _keep(key: str) -> None:
    path = cache_folder() / CACHE_FILE
    kept = _kept()
    kept.pop(key, None)
    kept[key] = _known[key]
    with contextlib.suppress(OSError):  # only later commands would have been faster
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as partial:
            partial.write_text(json.dumps(dict(list(kept.items())[-CACHED_FILES:])))
            os.replace(partial, path)
