"""The files of a record: JSON with its results, and next to it a parquet file with all users' lists (`lists.py`).

Tables and statistics are computed from these two files alone. The record has a checksum of itself and one of the
lists. They are replaced in three steps: the new record is written as `<digest>.next`, the lists are renamed to their
place, then the record is. Where a process is killed before the second step, the former pair is whole. Where it is
killed before the third, the lists are those of `<digest>.next`, which is read as the record until `finish_write` takes
the last step.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from grbench.errors import RunError, cut
from grbench.results.atomic import complete_file, write_atomically
from grbench.results.checksums import AlteredError, file_checksum, known_checksum, refuse_altered
from grbench.results.places import at_each_place
from grbench.results.record import MOVE_IT, TRIALS, Record, has_schema, parsed_json

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = {"compression": "zstd", "write_page_checksum": True}  # so that damage is seen when lists are read
MAX_BYTES = 100_000_000
"""Of a record's file; a training curve of a million rows has as many."""


AUDIT_FILE = "audit.json"
"""The leak audits of a suite, beside its records (`audit_file.py`)."""


def record_path(folder: Path, digest: str) -> Path:
    """Path of the record with this digest in its suite's folder."""
    return folder / f"{digest}.json"


def ranking_path(folder: Path, digest: str) -> Path:
    """Path of the lists of the record with this digest in its suite's folder."""
    return folder / f"{digest}.parquet"


def pending_path(folder: Path, digest: str) -> Path:
    """Path of the record that is about to replace the one with this digest, once its lists are in place."""
    return folder / f"{digest}.next"


def checkpoint_folder(folder: Path, digest: str) -> Path:
    """Folder of the checkpoints of the cell with this digest, in its suite's folder."""
    return folder / f"{digest}.checkpoint"


def remove_checkpoints(folder: Path, digest: str) -> None:
    """Removes a cell's checkpoints, if it has any; of a link in their place, the link alone."""
    path = checkpoint_folder(folder, digest)
    if path.is_symlink():
        path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def weights_path(folder: Path, record: Record) -> Path | None:
    """Path of the trained model that the record speaks of, in its suite's folder; None where it keeps none."""
    own = f"{record.digest}.weights."
    return next((folder / name for name in record.files if name.startswith(own)), None)


def new_weights_path(folder: Path, digest: str, checksum: str) -> Path:
    """Path for a trained model with this content. It is part of the name, so that a new model never takes the place of
    one that a record still speaks of."""
    return folder / f"{digest}.weights.{checksum[:16]}.safetensors"


def remove_other_weights(folder: Path, record: Record) -> None:
    """Removes trained models under the record's digest that it does not speak of: of earlier attempts at its cell."""
    for path in folder.glob(f"{record.digest}.weights.*"):
        if record.digest and path.name not in record.files:
            path.unlink(missing_ok=True)


def write_record(folder: Path, record: Record, lists: pa.Table | None = None) -> Path:
    """Writes the record with its lists; returns the record's path. Without lists, those of an earlier run are removed.

    Raises RunError where the disk is full or the folder cannot be written; an earlier record is then unchanged.
    """
    path, lists_path = record_path(folder, record.digest), ranking_path(folder, record.digest)
    pending = pending_path(folder, record.digest)
    files = {name: checksum for name, checksum in record.files.items() if name != lists_path.name}
    if lists is None:
        text = dataclasses.replace(record, files=files).to_json().encode()
        pending.unlink(missing_ok=True)  # else it would be read in place of this one
        write_atomically(path, lambda file: file.write(text))
        lists_path.unlink(missing_ok=True)
        return path
    import pyarrow.parquet as pq

    with complete_file(lists_path, lambda file: pq.write_table(lists, file, **PARQUET)) as partial:
        files[lists_path.name] = file_checksum(partial)
        text = dataclasses.replace(record, files=files).to_json().encode()
        write_atomically(pending, lambda file: file.write(text))
        partial.replace(lists_path)
        pending.replace(path)
    return path


def write_in_place(folder: Path, former: Record, record: Record, lists: pa.Table) -> Path:
    """Writes a record with its lists in place of a former one of the same folder; the former's other files, such as its
    log, go by the new digest. Returns the record's path; raises RunError as `write_record` does.

    Where this is interrupted, both records are there and complete.
    """
    if record.digest == former.digest:
        return write_record(folder, record, lists)
    moved = _other_files(folder, former.digest, record.digest)
    names = {file.name: new.name for file, new in moved.items()}
    files = {names[name]: checksum for name, checksum in record.files.items() if name in names}
    path = write_record(folder, dataclasses.replace(record, files=files), lists)
    for file, new in moved.items():
        if new.is_dir() and not new.is_symlink():  # of a cell of this digest that never ended well
            shutil.rmtree(new)
        file.replace(new)
    if former.digest:
        record_path(folder, former.digest).unlink(missing_ok=True)
        ranking_path(folder, former.digest).unlink(missing_ok=True)
    return path


def _other_files(folder: Path, digest: str, new: str) -> dict[Path, Path]:
    """{file: what it is called under the new digest} of a cell's files beside its record and lists, as its log; not of
    a record that is being written."""
    own = {path(folder, digest) for path in (record_path, ranking_path, pending_path)}
    return {
        file: folder / f"{new}{file.name.removeprefix(digest)}"
        for file in sorted(folder.glob(f"{digest}.*"))
        if digest and file not in own
    }


def finish_write(folder: Path, digest: str) -> None:
    """Ends the writing of a record that a killed process did not end: takes the last step where the lists are in place,
    else removes the new record. Only for who holds the cell's claim, because others may be writing. Raises OSError."""
    pending = pending_path(folder, digest)
    if _pending(folder, digest) is not None:
        pending.replace(record_path(folder, digest))
    else:
        pending.unlink(missing_ok=True)


def replace_record(folder: Path, record: Record) -> None:
    """Overwrites a record but not its lists; raises RunError as `write_record` does."""
    text = record.to_json().encode()
    write_atomically(record_path(folder, record.digest), lambda file: file.write(text))


def read_record(path: Path) -> Record:
    """Reads one record file; raises RunError where it is missing, not a valid record, or of a newer schema, and
    AlteredError where it was altered. Whether its lists were is not looked at: see `integrity.py`."""
    record = Record.from_json(_read(path), str(path))
    record = _pending(path.parent, record.digest) or record
    gone = record.status == "ok" and record.trial is None and not ranking_path(path.parent, record.digest).is_file()
    return dataclasses.replace(record, lists_gone=gone, folder=path.parent)


def _pending(folder: Path, digest: str) -> Record | None:
    """The record of which the last step of writing is still to be taken; None where there is no such record."""
    pending, lists = pending_path(folder, digest), ranking_path(folder, digest)
    if not pending.exists():
        return None
    try:
        record = Record.from_json(pending.read_bytes(), str(pending))
        return record if record.files.get(lists.name) == known_checksum(lists) else None
    except (OSError, RunError):  # another process has just taken the last step, or the lists are gone
        return None


def record_bytes(path: Path, record: Record) -> bytes:
    """The text of the file that the record was read from: `path`, or the one that is about to replace it. Raises
    RunError where it cannot be read."""
    pending = pending_path(path.parent, record.digest)
    unfinished = _pending(path.parent, record.digest)
    return _read(pending if unfinished is not None and unfinished.checksum == record.checksum else path)


def read_records(
    paths: Iterable[Path],
    note: Callable[[str], object] = warnings.warn,
    *,
    altered: Callable[[Path, AlteredError], object] | None = None,
    trials: bool = False,
) -> list[Record]:
    """All records in the given files and folders (searched recursively), by suite, method in the suite's order, seed.

    trials: those of trials, in place of the others.

    JSON files in a folder that are no records, neither by name nor by content, are left out and named to `note`.
    altered: gets the file and the error of each record that was altered, which is left out; None = they are raised as
    one.
    Raises RunError where a path does not exist, or a record is not valid or has a newer schema.
    """
    files, strays = record_files(paths)
    if strays:
        more = f" and {len(strays) - 5} more" if len(strays) > 5 else ""
        note(f"left out, because not a record of grbench: {', '.join(map(str, strays[:5]))}{more}")
    records, errors = list[Record](), dict[Path, AlteredError]()
    for file in files:
        try:
            records.append(read_record(file))
        except AlteredError as error:
            if trials or file.parent.name != TRIALS:  # no table shows a trial
                errors[file] = error
    if altered is None:
        refuse_altered(map(str, errors.values()))
    else:
        for file, reason in errors.items():
            altered(file, reason)
    kept = [record for record in records if (record.trial is not None) == trials]
    return sorted(kept, key=lambda record: (record.suite, record.order, record.method, record.seed, record.finished))


def record_files(paths: Iterable[Path]) -> tuple[dict[Path, None], list[Path]]:
    """(files of records, each once; JSON files in folders that are none)."""
    files: dict[Path, None] = {}
    strays: list[Path] = []
    for path in paths:
        if path.is_dir():
            # `<digest>.d` holds other files of a cell, such as trackers', which may be JSON too.
            found = [file for file in sorted(path.rglob("*.json")) if not any(p.suffix == ".d" for p in file.parents)]
            for file in filter(lambda file: file.name != AUDIT_FILE, found):
                if _is_stray(file):
                    strays.append(file)
                else:
                    files[file] = None
        elif path.exists():
            files[path] = None
        else:
            raise RunError(
                f"{cut(str(path), 300)}: no such file or folder of results; grbench run SUITE writes results/SUITE"
            )
    return files, strays


def _read(path: Path) -> bytes:
    """Raises RunError for what is no ordinary file of a record's size: a pipe or a device would never end."""
    try:
        if not path.is_file():
            raise RunError(f"{path}: is no file that can be read; {MOVE_IT}")
        if path.stat().st_size > MAX_BYTES:
            raise RunError(f"{path}: is larger than {MAX_BYTES:,} bytes, so it is no record of grbench; {MOVE_IT}")
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error


def _is_stray(file: Path) -> bool:
    """Whether a JSON file is no record: it is not named by a digest as records are, and says no schema version."""
    if re.fullmatch(r"[0-9a-f]{16}", file.stem):
        return False
    try:
        return not has_schema(parsed_json(_read(file), str(file)))
    except RunError:
        return True


def latest(records: Iterable[Record]) -> list[Record]:
    """What tables are made from: of each method and seed the `newest` record, once for each method that it is of."""
    found = list(records)
    placed = [each for record in found for each in at_each_place(record)]
    if len(placed) > len(found):  # those of one record are not beside each other in the suite
        placed.sort(key=lambda record: (record.suite, record.order, record.method, record.seed))
    return newest(placed)


def newest(records: Iterable[Record]) -> list[Record]:
    """The newest successful record of each cell, or its newest record where none has the status `ok`. A cell has
    several where results were copied, and where it was scored again with other metrics; rankings made elsewhere where
    their file was changed."""
    found: dict[tuple[str, str, str], Record] = {}

    def rank(record: Record) -> tuple[bool, str]:
        return record.status == "ok", record.finished

    for record in records:
        external = f"external, seed {record.seed}" if record.external else ""
        key = record.suite, record.method, external or record.lists_digest or record.digest
        if key not in found or rank(record) > rank(found[key]):
            found[key] = record
    return list(found.values())
