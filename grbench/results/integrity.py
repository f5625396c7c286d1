"""Whether records and their lists are as they were written."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from grbench.errors import RunError
from grbench.results.checksums import known_checksum, refuse_altered
from grbench.results.record import Record
from grbench.results.record_files import latest, ranking_path, read_record, read_records, record_path


def altered_lists(record: Record) -> str | None:
    """A sentence about the lists of a record that was read, where they are gone or not those it was written with; None
    where they are, and where the record, of an earlier grbench, does not say."""
    lists = None if record.folder is None else ranking_path(record.folder, record.digest)
    if lists is None or lists.name not in record.files:
        return None
    try:
        if known_checksum(lists) == record.files[lists.name] or _replaced_meanwhile(record, lists):
            return None
    except FileNotFoundError:
        return f"{lists}: the lists are gone"
    except OSError as error:
        return f"{lists}: the lists cannot be read ({error.strerror})"
    return f"{lists}: the lists were altered after they were written (their checksum is another)"


def _replaced_meanwhile(record: Record, lists: Path) -> bool:
    """Whether another process has written both since the record was read."""
    try:
        again = read_record(record_path(lists.parent, record.digest))
    except RunError:
        return False
    return again.checksum != record.checksum and again.files.get(lists.name) == known_checksum(lists)


def with_altered(record: Record) -> Record:
    """The record that says whether its lists were altered."""
    return dataclasses.replace(record, lists_altered=record.status == "ok" and altered_lists(record) is not None)


def intact_records(paths: Iterable[Path], note: Callable[[str], object] = warnings.warn) -> list[Record]:
    """Records as `read_records` reads them. Raises AlteredError that names all that were altered, and all lists that
    were altered or are gone, of the records that tables are made from (`latest`)."""
    altered: list[str] = []
    records = read_records(paths, note, altered=lambda _, error: altered.append(str(error)))
    refuse_altered([*altered, *filter(None, map(altered_lists, latest(records)))])
    return records
