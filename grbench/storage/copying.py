"""Copying what lies at a place to the local disk: each file under a temporary name, compared with its checksum, and
renamed. Files that have arrived are kept, also where others fail."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from grbench.errors import DataError
from grbench.storage.listing import FileListing, ListedFile
from grbench.storage.refusals import NO_SPACE, explained, no_space
from grbench.temporary import beside, replacing
from grbench.types import Progress

PIECE_BYTES = 1 << 24
STREAMS = 8
"""Requests at once: one alone does not fill a fast network."""


def copy_folder(cache: Path, listing: FileListing) -> Path:
    """The folder that holds the copy, whose name says what the content is: copies of the same content are one."""
    return cache / "copies" / f"{listing.place.name or 'data'}-{listing.digest}"


def copied_path(cache: Path, listing: FileListing) -> Path:
    """The copy of the listing's place, which may be a file."""
    folder = copy_folder(cache, listing)
    return folder / listing.files[0].name if listing.is_file else folder


def is_copied(cache: Path, listing: FileListing) -> bool:
    """Whether all files are there, as they were when they were compared with their checksums."""
    folder = copy_folder(cache, listing)
    record = _read_record(folder)
    return all(_as_recorded(folder, file, record) for file in listing.files)


def copy(cache: Path, listing: FileListing, report: Progress) -> Path:
    """Copies what is not there, or has changed since it was copied, and returns the folder. `report` is called with a
    name, and bytes that are there and bytes in all. Only one process at a time may copy the same listing.

    Raises DataError where a file cannot be read, is not what its checksum says, or does not fit on the disk.
    """
    folder = copy_folder(cache, listing)
    record = _read_record(folder)
    missing = [file for file in listing.files if not _is_whole(folder, file, record)]
    left = sum(file.size for file in missing)

    def advance(arrived: int) -> None:
        nonlocal left
        left -= arrived
        report(f"copying {listing.place.url}", listing.size - left, listing.size)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if left > shutil.disk_usage(folder).free:
            raise no_space(folder, left, shutil.disk_usage(folder).free)
        advance(0)
        for file, digest in _fetched(listing, missing, folder, advance):
            record[file.name] = _facts(folder / file.name, digest)
            _write_record(folder, record)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise no_space(folder, left, shutil.disk_usage(folder).free) from error
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}); set GRBENCH_CACHE to another folder"
        ) from error
    _write_record(folder, record)
    return folder


def _fetched(
    listing: FileListing, files: Sequence[ListedFile], folder: Path, advance: Callable[[int], None]
) -> Iterator[tuple[ListedFile, str]]:
    """Brings the files to the folder; yields each with its sha256. What arrives with another checksum than it should
    have is brought a second time, since it may have been altered on its way."""
    pool = ThreadPoolExecutor(STREAMS, thread_name_prefix="copying")
    try:
        contents = _read_ahead(pool, listing, files)
        for file in files:
            digest = _write(folder / file.name, file, contents, advance)
            if file.sha256 not in (None, digest):
                advance(-file.size)
                digest = _write(folder / file.name, file, _read_ahead(pool, listing, [file]), advance)
            if file.sha256 not in (None, digest):
                raise DataError(
                    f"{listing.folder.below(file.name).url}: is not what its checksum is of (sha256 {digest[:12]}..., "
                    f"and not {str(file.sha256)[:12]}...): it was cut off or altered after it was pushed; remove it "
                    "there and push it again"
                )
            yield file, digest
    finally:
        pool.shutdown(cancel_futures=True)


def _write(path: Path, file: ListedFile, contents: Iterator[bytes], advance: Callable[[int], None]) -> str:
    """Writes the file's pieces, the next ones of `contents`, and returns their sha256. Where it is another one than
    the file should have, nothing stays."""
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        with partial.open("xb") as out:
            for _ in _starts(file):
                content = next(contents)
                out.write(content)
                digest.update(content)
                advance(len(content))
            out.flush()
            os.fsync(out.fileno())
        if file.sha256 in (None, digest.hexdigest()):
            partial.replace(path)
    return digest.hexdigest()


def _read_ahead(pool: ThreadPoolExecutor, listing: FileListing, files: Iterable[ListedFile]) -> Iterator[bytes]:
    """The pieces of all files in order; the next STREAMS of them are being read."""
    coming = deque[Future[bytes]]()
    for file in files:
        for start in _starts(file):
            coming.append(pool.submit(_read, listing, file, start))
            if len(coming) > STREAMS:
                yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _read(listing: FileListing, file: ListedFile, start: int) -> bytes:
    """One piece; raises DataError where the file has become shorter."""
    place = listing.folder.below(file.name)
    length = min(PIECE_BYTES, file.size - start)
    with explained(place, "read"), place.files.open_input_file(place.path) as source:
        content: bytes = source.read_at(length, start)
    if len(content) != length:
        raise DataError(f"{place.url}: has become shorter than its {file.size:,} bytes while it was copied; try again")
    return content


def _starts(file: ListedFile) -> range:
    return range(0, file.size, PIECE_BYTES)


def _is_whole(folder: Path, file: ListedFile, record: dict[str, Any]) -> bool:
    """Whether the file is there; one that has been touched since it was copied is compared with its checksum anew."""
    if _as_recorded(folder, file, record):
        return True
    path = folder / file.name
    expected = file.sha256 or record.get(file.name, {}).get("sha256")
    if expected is None or not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != expected:
            return False
    record[file.name] = _facts(path, expected)
    return True


def _as_recorded(folder: Path, file: ListedFile, record: dict[str, Any]) -> bool:
    facts, path = record.get(file.name), folder / file.name
    return isinstance(facts, dict) and path.is_file() and facts == _facts(path, facts.get("sha256"))


def _facts(path: Path, digest: str | None) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "modified": stat.st_mtime_ns, "sha256": digest}


def _record_path(folder: Path) -> Path:
    """Beside the folder, in which a dataset finds what is at the place and nothing else."""
    return folder.with_name(f"{folder.name}.json")


def _read_record(folder: Path) -> dict[str, Any]:
    """{file: its size, time and sha256 when it had arrived}; what is damaged counts for nothing."""
    try:
        record = json.loads(_record_path(folder).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    with replacing(_record_path(folder)) as partial:
        partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
