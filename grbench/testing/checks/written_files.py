"""The files that are written in a block."""

from __future__ import annotations

from pathlib import Path

from grbench.audit.opened_files import SYSTEM, OpenedFiles


class WrittenFiles(OpenedFiles):
    """A context that notes which files are opened for writing, by Python's audit events."""

    def __init__(self) -> None:
        super().__init__({})

    @property
    def written(self) -> list[Path]:
        """Those that are still there, and lie in no folder of the system."""
        found = sorted({Path(path).resolve() for path in self._own})
        return [path for path in found if path.is_file() and not str(path).startswith(SYSTEM)]
