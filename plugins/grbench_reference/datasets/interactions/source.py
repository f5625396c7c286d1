"""Which files a log is: one file, or the parts that a folder holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grbench.errors import DataError
from grbench_reference.datasets.interactions.options import LogLayout
from grbench_reference.datasets.parquet_parts import natural_order, readable, require_all_numbers

DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t"}  # .inter: RecBole's atomic files
SUFFIXES = (".json", ".parquet", *DELIMITERS)
"""Files that say by their suffix how they are written; .txt and others need the option layout."""

_LAYOUTS: dict[str, LogLayout] = {".json": "json", **dict.fromkeys((".parquet", *DELIMITERS), "table")}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
MOST_EXPANSION = 300
"""Of a compressed log, in bytes of text per byte: real ones have 3 to 30."""
SMALL_TEXT = 1 << 26
"""Bytes of text that are read however small the file is."""

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "eval"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_TEXTS = (".txt", ".dat", ".data")
_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class LogSource:
    """The files of a log in their order. name: of the file, or of their folder; where: its path."""

    name: str
    where: Path
    files: tuple[Path, ...]
    layout: LogLayout

    @property
    def suffix(self) -> str:
        """The first file's suffix, in lower case, without that of a compression."""
        return kind_of(self.files[0])

    @property
    def bytes(self) -> int:
        """Of all files as they lie on disk."""
        return sum(file.stat().st_size for file in self.files)


def kind_of(path: Path) -> str:
    """The suffix of a file in lower case, without that of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes] or [""]
    return suffixes[-2] if suffixes[-1] in _COMPRESSIONS and len(suffixes) > 1 else suffixes[-1]


def open_text(path: Path) -> Any:
    """The bytes of a file as an arrow stream, decompressed where its suffix says so; raises OSError. Reading on raises
    DataError where a compressed file has grown to more than any log would."""
    compression = _COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        return pa.input_stream(str(path), compression=None)
    return pa.PythonFile(_Decompressed(path, compression), mode="r")


class _Decompressed:
    """The text of a compressed file, as far as it is not much larger than the file: a bomb fills memory or disk."""

    def __init__(self, path: Path, compression: str) -> None:
        self._path, self._read = path, 0
        self._most = max(MOST_EXPANSION * path.stat().st_size, SMALL_TEXT)
        self._stream = pa.input_stream(str(path), compression=compression)

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return bool(self._stream.closed)

    def read(self, size: int) -> bytes:
        """The next `size` bytes of text at most; raises DataError where they are too many."""
        text: bytes = self._stream.read(size)
        self._read += len(text)
        if self._read > self._most:
            raise DataError(
                f"{self._path}: holds more than {MOST_EXPANSION} times as much text as it has bytes, which no log of "
                "events does; decompress it yourself if you trust it"
            )
        return text

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


def beginning(path: Path, size: int) -> tuple[bytes, float]:
    """(the first `size` bytes of a file, decompressed; the share of the file that they are, about)."""
    with path.open("rb") as file:
        compression = _COMPRESSIONS.get(path.suffix.lower())
        stream = pa.PythonFile(file, mode="r") if compression is None else pa.input_stream(file, compression)
        text = stream.read(size)
        share = min(1.0, file.tell() / max(1, path.stat().st_size)) if len(text) == size else 1.0
    return text, share


def find_files(path: Path, named: str | Sequence[str] | None, layout: LogLayout | None) -> list[Path]:
    """The files of the log at `path`, a file or a folder. named: names or patterns of files in the folder, in order.

    Without names they are the folder's one `*.inter.json`, else its only file of a known kind, else all its parquet
    files. Raises DataError where there is none, or several of other kinds.
    """
    if named is not None:
        files = [file for name in ([named] if isinstance(named, str) else named) for file in _matches(path, name)]
    else:
        files = [path]
    for file in files:
        if not file.exists():
            raise DataError(f"{file}: does not exist; the options path and file should name a log of interactions")
    if len(files) != 1 or not files[0].is_dir():
        return files
    folder, kinds = files[0], (*SUFFIXES, *_TEXTS) if layout else SUFFIXES
    children = sorted(folder.iterdir(), key=lambda child: natural_order(child.name))
    found = [child for child in children if kind_of(child) in kinds]
    found = found or [child for child in children if kind_of(child) in _TEXTS]
    if layout not in (None, "table"):
        found = [child for child in found if _LAYOUTS.get(kind_of(child), layout) == layout]
    logs = [child for child in found if child.name.lower().endswith(".inter.json")]
    if len(logs or found) == 1:
        return logs or found
    if found and {kind_of(child) for child in found} == {".parquet"}:
        return found
    if found:
        raise DataError(
            f"{folder}: holds {_some(found)}; choose one with the option file, or several that are one log with a list "
            "or a pattern"
        )
    folders = [child for child in children if child.is_dir()]
    raise DataError(
        f"{folder}: holds no log of interactions; known kinds are {', '.join(SUFFIXES)}"
        + (f"; it has folders ({_some(folders)}): file: '*/*.parquet' would read what they hold" if folders else "")
    )


def find_source(path: Path, named: str | Sequence[str] | None, layout: LogLayout | None) -> LogSource:
    """The log at `path`, as `find_files` finds it. Raises DataError where its files are not one log by their kinds,
    names or columns, or do not say how they are written."""
    files = find_files(path, named, layout)
    kinds = sorted({kind_of(file) for file in files})
    layouts = {layout or _LAYOUTS.get(kind) for kind in kinds}
    if None in layouts:
        unknown = next(file for file in files if kind_of(file) not in _LAYOUTS)
        raise DataError(
            f"{unknown}: has an unknown suffix; known are {', '.join(SUFFIXES)}. How another file is written is said "
            "by the option layout: pairs (`user item` a line), histories (`user item item ...` a line), json or table"
        )
    if len(layouts) > 1 or (".parquet" in kinds and (len(kinds) > 1 or layouts != {"table"})):
        raise DataError(f"{path}: {_some(files)} are not of one kind, or not as layout: {layout} says")
    if kinds == [".parquet"] and len(files) > 1:
        require_all_numbers(files[0].parent, files)
        if named is None:
            _require_one_log(path, files)
    where = files[0] if len(files) == 1 else path
    return LogSource(where.name, where, tuple(files), layouts.pop() or "table")


def _matches(folder: Path, name: str) -> list[Path]:
    if not _PATTERN.search(name):
        return [folder / name]
    found = sorted(folder.glob(name), key=lambda file: natural_order(str(file)))
    if not found:
        raise DataError(f"{folder}: has no file {name}; the option file should name files in it")
    return found


def _require_one_log(folder: Path, files: Sequence[Path]) -> None:
    """Raises DataError where names or columns of the files say that they are different tables, such as train and
    test."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", file.stem.lower())
        splits.setdefault(next((_SPLITS[word] for word in words if word in _SPLITS), "other"), []).append(file)
    schemas: dict[frozenset[str], list[Path]] = {}
    for file in files:
        with readable(file):
            schemas.setdefault(frozenset(pq.read_schema(file).names), []).append(file)
    if len(splits) > 1:
        groups = "; ".join(f"{split}: {_some(parts)}" for split, parts in splits.items())
    elif len(schemas) > 1:
        groups = "; ".join(f"{_some(parts)} with {', '.join(sorted(names))}" for names, parts in schemas.items())
    else:
        return
    raise DataError(
        f"{folder}: its parquet files seem to be different tables ({groups}). The option file names those that are the "
        f"log, in their order, such as file: {files[0].name}; file: '*.parquet' joins all of them"
    )


def _some(paths: Sequence[Path]) -> str:
    more = len(paths) - 4
    return ", ".join(path.name for path in paths[:4]) + (f" and {more} more" if more > 0 else "")
