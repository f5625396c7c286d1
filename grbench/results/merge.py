"""Joining folders of results: every cell's newest good record, with its lists, log and what else lies beside it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from grbench.errors import RunError, cut
from grbench.results.atomic import complete_file, write_atomically
from grbench.results.checksums import AlteredError, file_checksum, refuse_altered
from grbench.results.claims import Claim, claim
from grbench.results.integrity import altered_lists
from grbench.results.places import at_places, places_of, shows_scores
from grbench.results.record import TRIALS, Record
from grbench.results.record_files import (
    pending_path,
    ranking_path,
    read_record,
    record_bytes,
    record_files,
    record_path,
    remove_other_weights,
    replace_record,
)
from grbench.temporary import beside

LEFT_BEHIND = (".json", ".parquet", ".next")
"""Endings of files that are written with the record, or not copied."""


@dataclass(frozen=True)
class FoundRecord:
    """A record in one of the folders that are joined. file: its own."""

    file: Path
    record: Record

    @property
    def folder(self) -> Path:
        """Where the lists are."""
        return self.file.parent


@dataclass(frozen=True)
class CellCopy:
    """A cell that is to be copied to a folder. record: as found, with the places of the others of its digest too."""

    found: FoundRecord
    target: Path
    record: Record


def plan_merge(
    sources: Sequence[Path], out: Path, *, newest: bool, note: Callable[[str], object]
) -> tuple[list[CellCopy], int]:
    """(what has to be copied to `out`, the number of records that are there already and stay). Of records of a cell,
    successful ones with lists come first, then the newest; records in `out` take part, and stay where they are as good.

    newest: whether the newest record is taken where successful ones have other scores. Raises RunError where they have
    and it is not to be, where a folder is missing, or a suite's name is none; AlteredError where a record or lists were
    altered.
    """
    if missing := [str(source) for source in sources if not source.is_dir()]:
        raise RunError(f"{', '.join(missing)}: no such folder of results")
    there = list(_found([out], note)) if out.is_dir() else []
    given = [each for each in _found(sources, note) if each.file.resolve() not in {one.file.resolve() for one in there}]
    cells: dict[tuple[str, str], list[FoundRecord]] = {}
    for each in [*there, *given]:
        cells.setdefault((each.record.suite, each.record.digest), []).append(each)
    if not newest:
        _refuse_conflicts(cells.values())
    copies, stay = [], 0
    for (suite, digest), found in cells.items():
        for key, value in (("suite", suite), ("digest", digest)):
            if not re.fullmatch(r"\w[\w.-]{0,99}", value):
                raise RunError(f"{found[0].file}: {key}: {cut(value)!r} cannot name a folder or file; leave it out")
        target = out / suite if found[0].record.trial is None else out / suite / TRIALS
        best = max(found, key=lambda each: (each.record.done, each.record.status == "ok", each.record.finished))
        # A folder may know the cell as a method, another one as a row of a grid.
        others = [place for each in found for place in places_of(each.record)]
        record = at_places(best.record, [*places_of(best.record), *others])
        if _lies_at(best, target) and record == best.record:
            stay += 1
        else:
            copies.append(CellCopy(best, target, record))
    return copies, stay


def copy_cell(copy: CellCopy) -> None:
    """Copies a cell's files. The record comes last, as when a cell is run. Raises RunError where the disk is full, the
    folder cannot be written or a process has claimed the cell there; AlteredError where the lists changed meanwhile."""
    record, source, target = copy.record, copy.found.folder, copy.target
    digest = record.digest
    target.mkdir(parents=True, exist_ok=True)
    got = claim(target, digest)
    if not isinstance(got, Claim):
        raise RunError(f"{record_path(target, digest)}: {got.where} is running this cell; merge once it has ended")
    with got:
        if _lies_at(copy.found, target):
            replace_record(target, record)
            return
        for path in sorted(source.glob(f"{digest}.*")):
            if not path.is_symlink() and path.suffix not in LEFT_BEHIND:
                _copy_beside(path, target / path.name)
        lists, content = ranking_path(source, digest), record.to_json().encode()
        if record == copy.found.record:
            content = record_bytes(copy.found.file, record)
        there = ranking_path(target, digest)
        if not lists.is_file():
            pending_path(target, digest).unlink(missing_ok=True)
            write_atomically(record_path(target, digest), lambda file: file.write(content))
            there.unlink(missing_ok=True)
            return
        with lists.open("rb") as opened, complete_file(there, lambda file: shutil.copyfileobj(opened, file)) as partial:
            if record.files.get(lists.name, file_checksum(partial)) != file_checksum(partial):
                raise AlteredError(f"{lists}: the lists were altered after they were written")
            write_atomically(pending_path(target, digest), lambda file: file.write(content))
            partial.replace(there)
            pending_path(target, digest).replace(record_path(target, digest))
        remove_other_weights(target, record)


def _lies_at(found: FoundRecord, folder: Path) -> bool:
    """Whether the record is the folder's own."""
    return found.file.resolve() == record_path(folder, found.record.digest).resolve()


def _found(folders: Iterable[Path], note: Callable[[str], object]) -> Iterator[FoundRecord]:
    """All records in the folders. Raises AlteredError that names all that was altered."""
    files, strays = record_files(folders)
    for stray in strays:
        note(f"left out, because not a record of grbench: {stray}")
    altered: list[str] = []
    found = []
    for file in files:
        try:
            found.append(FoundRecord(file, read_record(file)))
        except AlteredError as error:
            altered.append(str(error))
    refuse_altered([*altered, *filter(None, (altered_lists(each.record) for each in found))])
    yield from found


def _refuse_conflicts(cells: Iterable[Sequence[FoundRecord]]) -> None:
    """Raises RunError that names the cells of which successful records have other scores."""
    lines = []
    for found in cells:
        good = [each for each in found if each.record.status == "ok"]
        if any(each.record.scores != good[0].record.scores for each in good):
            record = good[0].record
            where = "; ".join(f"{_scores(each.record)} in {each.file}" for each in good)
            lines.append(f"{record.suite}: {record.method}, seed {record.seed}: {where}")
    if lines:
        more = [f"... and {len(lines) - 20} more"] if len(lines) > 20 else []
        raise RunError(
            "\n".join(["these cells have other scores in one folder than in another:", *lines[:20], *more])
            + "\nnothing was copied; take the newest of each with --newest, or leave a folder out"
        )


def _scores(record: Record) -> str:
    """The first scores; of a row of a grid, which may not be the one that is chosen, only when it was run."""
    if not shows_scores(record):
        return f"that of {record.finished}"
    return ", ".join(f"{name} {value}" for name, value in list(record.scores.items())[:3])


def _copy_beside(path: Path, target: Path) -> None:
    """Copies a file, or a folder without what its symbolic links point to."""
    try:
        with beside(target) as partial:
            if not path.is_dir():
                shutil.copyfile(path, partial)
                partial.replace(target)
                return
            shutil.copytree(path, partial, ignore=lambda at, names: [n for n in names if (Path(at) / n).is_symlink()])
            if target.is_dir():
                shutil.rmtree(target)
            partial.replace(target)
    except OSError as error:
        raise RunError(f"{target}: cannot be written ({error.strerror or error})") from error
