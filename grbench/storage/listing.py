"""The files at a place, with the checksums that `SHA256SUMS` beside them gives."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from grbench.errors import DataError, cut
from grbench.storage.place import Place
from grbench.storage.refusals import explained, no_bucket

SUMS = "SHA256SUMS"
"""As `sha256sum` writes it and `sha256sum --check` reads it; it is not copied."""

MOST_BYTES = 1 << 26
"""The largest small file (checksums, descriptions) that is read at once."""

_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]{64}) [ *](?P<name>.+)")


@dataclass(frozen=True)
class ListedFile:
    """name: relative to the listing's folder, with `/`; modified: nanoseconds; sha256: None where no SHA256SUMS has
    it."""

    name: str
    size: int
    modified: int
    sha256: str | None = None


@dataclass(frozen=True)
class FileListing:
    """The files at a place, sorted by name. folder: that holds them; place: what was asked for, the folder itself or
    its only file."""

    place: Place
    folder: Place
    files: tuple[ListedFile, ...]

    @property
    def is_file(self) -> bool:
        """Whether the place is a file and no folder."""
        return self.place is not self.folder

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """16 hex digits that name the content: of names and checksums where these are known, wherever the place is;
        else of the place, and of names, sizes and times."""
        if all(file.sha256 for file in self.files):
            facts: list[object] = [[file.name, file.sha256] for file in self.files]
        else:
            facts = [self.folder.url, *([file.name, file.size, file.modified] for file in self.files)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def __contains__(self, name: str) -> bool:
        return any(file.name == name for file in self.files)


def list_place(place: Place) -> FileListing:
    """What lies there. Raises DataError where that is nothing, it cannot be read, or its SHA256SUMS names other files
    than there are."""
    from pyarrow.fs import FileSelector, FileType

    with explained(place, "read"):
        info = place.files.get_file_info(place.path)
        if info.type == FileType.NotFound:
            bucket = place.path.partition("/")[0]
            gone = not place.is_local and place.files.get_file_info(bucket).type == FileType.NotFound
            raise DataError(f"{place.url}: {no_bucket(place) if gone else 'there is no such file or folder'}")
        if info.type == FileType.File:
            return _only_file(place, info)
        found = place.files.get_file_info(FileSelector(place.path, recursive=True))
    start = len(place.path.rstrip("/")) + 1
    files = [_listed(each.path[start:], each, place) for each in found if each.type == FileType.File]
    if not files:
        raise DataError(f"{place.url}: the folder is empty")
    if any(file.name == SUMS for file in files):
        files = _with_sums(place, files)
    return FileListing(place, place, tuple(sorted(files, key=lambda file: file.name)))


def read_small(place: Place) -> bytes:
    """The content of a small file; raises DataError."""
    with explained(place, "read"), place.files.open_input_file(place.path) as file:
        if file.size() > MOST_BYTES:
            raise DataError(f"{place.url}: is larger than {MOST_BYTES:,} bytes, so it is not what its name says")
        content: bytes = file.read()
    return content


def sums_text(sums: Mapping[str, str]) -> str:
    """{name: sha256} -> the content of SHA256SUMS. Raises DataError for a name that it cannot hold."""
    if wrong := next((name for name in sums if re.search(r"[\\\r\n]", name)), None):
        raise DataError(f"{cut(repr(wrong))}: a file's name must not have line ends or backslashes")
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def read_sums(place: Place) -> dict[str, str]:
    """{name: sha256} of the SHA256SUMS in the folder; raises DataError where it is damaged."""
    where = place.below(SUMS)
    found = {}
    for number, line in enumerate(read_small(where).decode(errors="replace").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{where.url}: line {number} is no checksum with a file's name: {cut(line)}")
        found[match["name"].removeprefix("./")] = match["digest"].lower()
    return found


def _only_file(place: Place, info: object) -> FileListing:
    from pyarrow.fs import FileType

    head, _, name = place.path.rpartition("/")
    folder = Place(place.url.rpartition("/")[0], place.files, head, place.is_local)
    with explained(place, "read"):
        has_sums = place.files.get_file_info(f"{head}/{SUMS}").type == FileType.File
    digest = read_sums(folder).get(name) if has_sums else None
    return FileListing(place, folder, (replace(_listed(name, info, place), sha256=digest),))


def _listed(name: str, info: object, place: Place) -> ListedFile:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise DataError(f"{place.url}: lists the file {cut(repr(name))}, which is not inside of the folder")
    return ListedFile(name, int(getattr(info, "size", 0) or 0), int(getattr(info, "mtime_ns", 0) or 0))


def _with_sums(place: Place, files: Iterable[ListedFile]) -> list[ListedFile]:
    """The files with their checksums; raises DataError unless SHA256SUMS names all of them, and no others."""
    sums = read_sums(place)
    there = [file for file in files if file.name != SUMS]
    if missing := sorted(sums.keys() - {file.name for file in there}):
        raise DataError(
            f"{place.url}: lacks {cut(missing[0])}, which its {SUMS} names ({len(missing)} of {len(sums)} files are "
            "missing): it was not pushed to the end; run the same `grbench data push` again"
        )
    if unknown := sorted(file.name for file in there if file.name not in sums):
        raise DataError(
            f"{place.url}: its {SUMS} does not name {cut(unknown[0])} ({len(unknown)} such files), so what is there "
            "is of two sources; remove what does not belong there"
        )
    return [replace(file, sha256=sums[file.name]) for file in there]
