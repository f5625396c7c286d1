"""The file of Optuna's studies: a journal of a line an operation, which outlives a kill at any moment."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


class KernelLock(JournalFileOpenLock):
    """A lock of a journal. The kernel lets go of it when its process ends, however that ends; Optuna's own
    locks are files that a killed process leaves behind."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Waits for the lock."""
        self._file = self._path.open("wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Lets go of the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None


def open_journal(path: Path) -> JournalStorage:
    """Optuna's storage in this file, which is made where it is not there."""
    lock = KernelLock(path.with_name(f"{path.name}.lock"))
    lock.acquire()
    try:
        _cut_unfinished_line(path)
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def read_journal(path: Path) -> JournalStorage:
    """The storage in this file, which is there, to be read only. A last line without an end is passed over: another
    process may be writing it."""
    return JournalStorage(JournalFileBackend(str(path), lock_obj=KernelLock(path.with_name(f"{path.name}.lock"))))


def _cut_unfinished_line(path: Path) -> None:
    """Removes a last line without an end, which a loss of power may leave, and to which the next one would be added."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
