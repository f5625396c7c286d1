"""The folder of what can be made again: stores, indices, signatures, checksums, and marks of what runs just now."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(folder: Path | None = None) -> Path:
    """The folder given, else $GRBENCH_CACHE, else ~/.cache/grbench."""
    return folder or Path(os.environ.get("GRBENCH_CACHE") or Path.home() / ".cache" / "grbench")
