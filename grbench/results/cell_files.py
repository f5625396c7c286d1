"""The files of a cell in a folder of results: the record, and what lies beside it under the same digest."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from grbench.errors import RunError
from grbench.results.checksums import AlteredError
from grbench.results.claims import Claim, claim, claims_in
from grbench.results.record import Record
from grbench.results.record_files import read_record, record_path
from grbench.temporary import leftovers

_OWN = re.compile(r"^(?P<digest>[0-9a-f]{16})\.(?:json|parquet|log|next|d|checkpoint[\w.-]*|weights[\w.-]*)$")
"""Names that grbench gives to files of cells; all others are somebody else's."""


@dataclass(frozen=True)
class CellFiles:
    """digest: of the cell, empty for files of no cell; record: None where there is none, or it was altered; files: all
    of the cell's files and folders."""

    digest: str
    record: Record | None
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(size_of, self.files))


def cells_in(folder: Path, suite: str) -> dict[str, CellFiles]:
    """{digest: its files} of all cells of the suite in its folder. A digest whose record is of another suite, of a
    newer grbench or no record at all is left out: its files are somebody else's."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (match := _OWN.match(path.name)) and not path.is_symlink():
            found.setdefault(match["digest"], []).append(path)
    cells = {}
    for digest, files in found.items():
        record = None
        if record_path(folder, digest) in files:
            try:
                record = read_record(record_path(folder, digest))
            except AlteredError:
                pass  # it was a record of grbench, and can be nothing else
            except RunError:
                continue
            if record is not None and (record.suite != suite or record.digest != digest):
                continue
        cells[digest] = CellFiles(digest, record, tuple(files))
    return cells


def prunable(folder: Path, suite: str, keep: set[str]) -> list[CellFiles]:
    """What can be removed from a suite's folder: the files of all cells whose digests are not in `keep` and that no
    living process has claimed, and what dead processes left half-written."""
    claimed = {name for name, found in claims_in(folder).items() if found.lives}
    cells = cells_in(folder, suite)
    removable = [each for digest, each in cells.items() if digest not in keep and digest not in claimed]
    rest = tuple(leftovers(folder))
    return [*removable, *([CellFiles("", None, rest)] if rest else [])]


def remove(folder: Path, cell: CellFiles) -> bool:
    """Removes the files of a cell, which is claimed meanwhile; false where another process has claimed it. Raises
    RunError where one cannot be removed."""
    if not cell.digest:
        for path in cell.files:
            _remove(path)
        return True
    got = claim(folder, cell.digest)
    if not isinstance(got, Claim):
        return False
    with got:
        # First what makes the others a result: a kill in between then leaves files without a record, to be pruned.
        for path in sorted(cell.files, key=lambda path: (path.suffix != ".next", path.suffix != ".json")):
            _remove(path)
    return True


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(size_of(entry) for entry in path.iterdir())
        return path.lstat().st_size
    except OSError:  # removed meanwhile
        return 0


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be removed ({error.strerror or error})") from error
