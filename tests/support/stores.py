"""The stores in a cache folder."""

from __future__ import annotations

from pathlib import Path


def stores_in(cache: Path) -> list[Path]:
    """The folders of stores; `running`, where runs mark themselves, is none."""
    return [path for path in cache.iterdir() if path.name != "running"]
