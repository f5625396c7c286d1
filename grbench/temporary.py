"""Temporary files and folders. Their names say which process they are of: what a killed process left behind is removed
by the next one that makes such a path in the same folder, what a living one is writing is left alone."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_OWNER = re.compile(r"\.partial-(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]+)-")
_numbers = itertools.count()


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yields a path next to `path`, for what is to be renamed to it once it is complete. What is still there in the end
    is removed."""
    remove_leftovers(path.parent)
    partial = path.with_name(f".{path.name}{_owner()}{next(_numbers)}")
    try:
        yield partial
    finally:
        _remove(partial)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path for a file that is put in the place of `path` once all of it is on the disk. Until then, and where
    the block raises, `path` stays as it was."""
    with beside(path) as partial:
        yield partial
        _sync(partial)
        partial.replace(path)
    if os.name == "posix":
        _sync(path.parent)  # so that the rename survives a power failure


def _sync(path: Path) -> None:
    """Waits until the file's content, or the folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yields a new folder in the system's folder for temporary files, which is removed in the end."""
    place = Path(tempfile.gettempdir())
    remove_leftovers(place)
    with tempfile.TemporaryDirectory(prefix=f"grbench{_owner()}", dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files and folders of dead processes in `folder`, which need not exist.

    Whether a process of another machine or container still runs is not known; what it made is left alone.
    """
    for path in leftovers(folder):
        _remove(path)


def leftovers(folder: Path) -> Iterator[Path]:
    """The temporary files and folders of dead processes in `folder`."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            owner = _OWNER.search(entry.name)
            if owner and owner["machine"] == _machine() and not _runs(int(owner["process"])):
                yield Path(entry.path)


def _owner() -> str:
    return f".partial-{_machine()}-{os.getpid()}-"


@cache
def _machine() -> str:
    """8 hex digits for the machine and, where processes are numbered by container, the container."""
    try:
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        numbering = ""
    return hashlib.sha256(f"{platform.node()} {numbering}".encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    import psutil  # here, because it is needed only where something was found

    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # another user's
        return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
