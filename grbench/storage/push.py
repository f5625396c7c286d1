"""Pushing a folder or a file to a place, with the checksums by which copies of it are checked.

SHA256SUMS is written first. So what is there before all files have arrived is never taken for the whole, and the same
push goes on where it was stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from grbench.errors import DataError
from grbench.storage.listing import SUMS, read_sums, sums_text
from grbench.storage.place import Place
from grbench.storage.refusals import explained, no_bucket
from grbench.temporary import replacing
from grbench.types import Progress

BLOCK_BYTES = 1 << 23
STREAMS = 4


def push(source: Path, place: Place, report: Progress) -> bool:
    """Copies the files of the folder `source`, or the file, into the folder `place`. Returns whether anything was
    written: not where all is there already. `report` is called with a name, and bytes done and in all.

    Raises DataError where there is nothing, other files are there, or the place cannot be written.
    """
    root = source if source.is_dir() else source.parent
    files = sorted(path for path in (source.rglob("*") if source.is_dir() else [source]) if path.is_file())
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in files}
    sizes.pop(SUMS, None)
    if not sizes:
        raise DataError(f"{source}: there are no files to push")
    sums = _checksums(root, sizes, report)
    there = _sizes_at(place)
    if SUMS in there and read_sums(place) != sums:
        raise DataError(f"{place.url}: holds other files, by its {SUMS}; remove them, or choose another place")
    if SUMS not in there and there:
        raise DataError(f"{place.url}: holds files that no push has put there; choose another place")
    missing = [name for name, size in sizes.items() if there.get(name) != size]
    if not missing and SUMS in there:
        return False
    with explained(place, "written"):
        _write(place.below(SUMS), [sums_text(sums).encode()])
    _upload(root, place, {name: sizes[name] for name in missing}, report)
    return True


def _checksums(root: Path, sizes: Mapping[str, int], report: Progress) -> dict[str, str]:
    done, total, sums = 0, sum(sizes.values()), dict[str, str]()
    for name, size in sizes.items():
        with (root / name).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
        done += size
        report("checksums", done, total)
    return sums


def _sizes_at(place: Place) -> dict[str, int]:
    """{name: size} of the files that are there."""
    from pyarrow.fs import FileSelector, FileType

    with explained(place, "read"):
        bucket = place.path.partition("/")[0]
        if not place.is_local and place.files.get_file_info(bucket).type == FileType.NotFound:
            raise DataError(f"{place.url}: {no_bucket(place)}; create it first")
        if place.files.get_file_info(place.path).type == FileType.File:
            raise DataError(f"{place.url}: is a file; give a folder to push to")
        found = place.files.get_file_info(FileSelector(place.path, recursive=True, allow_not_found=True))
    start = len(place.path) + 1
    return {each.path[start:]: each.size for each in found if each.type == FileType.File}


def _upload(root: Path, place: Place, sizes: Mapping[str, int], report: Progress) -> None:
    done, total, lock = 0, sum(sizes.values()), threading.Lock()
    stopped = threading.Event()

    def advance(sent: int) -> None:
        nonlocal done
        if stopped.is_set():
            raise InterruptedError  # another file has failed, or Ctrl-C was pressed
        with lock:
            done += sent
            report(f"pushing to {place.url}", done, total)

    def send(name: str) -> None:
        where = place.below(*name.split("/"))
        with explained(where, "written"):
            _write(where, _blocks(root / name, advance))

    pool = ThreadPoolExecutor(STREAMS, thread_name_prefix="pushing")
    try:
        for sent in [pool.submit(send, name) for name in sizes]:
            sent.result()
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _blocks(path: Path, advance: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block
            advance(len(block))


def _write(place: Place, blocks: Iterable[bytes]) -> None:
    """Writes a file, which is seen once it is whole."""
    if place.is_local:
        path = Path(place.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("xb") as out:
            out.writelines(blocks)
        return
    with place.files.open_output_stream(place.path) as out:
        try:
            for block in blocks:
                out.write(block)
        except BaseException:
            out.close()  # which makes an object of what was written so far
            with contextlib.suppress(OSError):
                place.files.delete_file(place.path)
            raise
