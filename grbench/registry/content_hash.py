"""Hashes of the content of files and folders."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path


def file_hash(path: Path) -> str:
    """sha256 of the file's bytes, in hex digits; raises OSError where it cannot be read.

    The hash is cached as long as the file's size and modification time stay the same.
    """
    status = path.stat()
    return _hash_of(os.path.realpath(path), status.st_size, status.st_mtime_ns)


def folder_hash(path: Path) -> str:
    """sha256 of the relative paths and contents of all files below the folder; raises OSError where it is not a folder
    or cannot be read."""
    os.scandir(path).close()  # raises OSError for a missing folder, for which rglob would find no files
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    lines = [f"{name}\0{file_hash(file)}" for name, file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def _hash_of(path: str, size: int, modified: int) -> str:  # noqa: ARG001 - part of the cache's key
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
