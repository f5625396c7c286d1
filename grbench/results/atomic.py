"""Writing files so that nobody ever sees a part of one."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from grbench.errors import RunError
from grbench.temporary import beside

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Calls `write` with a temporary file next to `path`, and renames it to `path` once its content is on the disk."""
    with complete_file(path, write) as partial:
        partial.replace(path)


@contextlib.contextmanager
def complete_file(path: Path, write: Callable[[IO[bytes]], object]) -> Iterator[Path]:
    """Yields a temporary file next to `path`, whose content `write` has written and which is on the disk; what is
    renamed inside is on the disk afterwards. Raises RunError where the disk is full or the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as partial:
            with partial.open("xb") as file:  # never through a link that somebody put there
                write(file)
                file.flush()
                os.fsync(file.fileno())
            yield partial
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise RunError(
                f"{path}: no space left for this result; free some and run the same command again. "
                "Results written before are complete, and the incomplete file was removed"
            ) from error
        if isinstance(error, FileExistsError | NotADirectoryError) and (above := _file_above(path)):
            raise RunError(f"{path}: cannot be written, because {above} is a file and no folder") from error
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error


def _file_above(path: Path) -> Path | None:
    """The one of the folders that the path names that is a file."""
    return next((folder for folder in path.parents if folder.exists() and not folder.is_dir()), None)


def _sync_folder(folder: Path) -> None:
    """Writes the folder's entries to disk, so that a rename survives a power failure (POSIX only)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
