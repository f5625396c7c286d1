"""What files hold: the sha256 of a file, or of all the files of a folder."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path


def file_hash(path: Path) -> str:
    """sha256 of the file's bytes, as hex digits; raises OSError where it cannot be read.

    A process reads a file once, as long as its size and its time of change stay the same.
    """
    status = path.stat()
    return _hash_of(os.path.realpath(path), status.st_size, status.st_mtime_ns)


def folder_hash(path: Path) -> str:
    """sha256 over all files below the folder, by their relative paths and contents; raises OSError where it is none."""
    os.scandir(path).close()  # a missing folder, and a file, would have no files below them
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    lines = [f"{name}\0{file_hash(file)}" for name, file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def _hash_of(path: str, size: int, changed: int) -> str:  # noqa: ARG001 - size and time are of the cache's key
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
