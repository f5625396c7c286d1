"""A folder of parquet parts, checked by its footers and read as a stream of record batches.

Memory stays that of a few batches, whatever the folder holds. Every message names the file, and the column and the
row (counted from 0 within the file) where they are known.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grbench.errors import DataError
from grbench.types import Progress

Complain = Callable[[DataError], None]
"""Told of each fault in the data. Ingest raises it; validation keeps it, and the reader goes on without those rows."""


# Column chunks are read through a buffer of this many bytes; unbuffered, arrow would load each one whole.
_READ_BUFFER = 1 << 20

_NUMBERED_PART = re.compile(r"(?P<stem>.*?)(?P<number>\d+)-of-(?P<total>\d+)(?P<rest>.*)")


def raise_it(error: DataError) -> None:
    """The Complain of those who cannot go on."""
    raise error


@dataclass(frozen=True)
class ColumnType:
    """What a column may be: in words, and as a test of its arrow type."""

    words: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class ParquetPart:
    """One parquet file, as its footer describes it."""

    path: Path
    rows: int
    schema: Any


@dataclass(frozen=True)
class PartBatch:
    """Some rows of one part; `first_row` is where they start in it."""

    path: Path
    first_row: int
    columns: Any

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    def array(self, column: str) -> Any:
        """The column as an arrow array."""
        return self.columns.column(column)

    def whole(self, column: str, *, null: int) -> np.ndarray:
        """The column as [rows] int64; nulls become `null`."""
        with self.reading(column):
            return whole_numbers(self.array(column), null=null)

    def error(self, problem: str, *, column: str | None = None, row: int | None = None) -> DataError:
        """A DataError that says where: `row` counts within this batch."""
        where = str(self.path)
        if row is not None:
            where += f", row {self.first_row + row}"
        if column is not None:
            where += f", column {column}"
        return DataError(f"{where}: {problem}")

    @contextmanager
    def reading(self, column: str) -> Iterator[None]:
        """Turns what arrow says of a value that does not fit into a DataError."""
        try:
            yield
        except pa.ArrowInvalid as error:
            raise self.error(f"a value does not fit ({_first_line(error)})", column=column) from error


@dataclass(frozen=True)
class PartFolder:
    """A table of the release: the parquet parts of one folder, in the order of their numbers."""

    name: str
    parts: tuple[ParquetPart, ...]

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    def values(self, column: str) -> int:
        """How many values a column holds, by the footers: a null and an empty list count 1."""
        return sum(
            next(chunk.num_values for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
            for chunks in self._chunks()
        )

    def largest(self, column: str) -> int | None:
        """The largest value of a column of whole numbers, by the footers; None where one of them does not say it."""
        found = [chunk.statistics for chunks in self._chunks() for chunk in chunks if chunk.path_in_schema == column]
        if not all(each is not None and each.has_min_max for each in found):
            return None
        return max((int(each.max) for each in found), default=None)

    def _chunks(self) -> Iterator[list[Any]]:
        """The column chunks of each row group of each part."""
        for part in self.parts:
            with readable(part.path), pq.ParquetFile(part.path) as file:
                footer = file.metadata
            for group in map(footer.row_group, range(footer.num_row_groups)):
                yield [group.column(place) for place in range(group.num_columns)]

    def require(self, columns: Mapping[str, ColumnType]) -> None:
        """Raises DataError naming the file and the column unless every part has these columns, of these types."""
        for part in self.parts:
            for column, expected in columns.items():
                if column not in part.schema.names:
                    raise DataError(
                        f"{part.path}: has no column {column} ({expected.words}); it has {', '.join(part.schema.names)}"
                    )
                found = part.schema.field(column).type
                if not expected.fits(found):
                    raise DataError(f"{part.path}: column {column} is {found}; it should be {expected.words}")

    def stream(self, columns: Sequence[str], *, batch_rows: int, report: Progress) -> Iterator[PartBatch]:
        """Every row of every part, in order, a batch at a time; the next batches are decoded meanwhile."""
        done = 0
        report(self.name, 0, self.rows)
        for batch in read_ahead(self._batches(columns, batch_rows)):
            yield batch
            done += len(batch)
            report(self.name, done, self.rows)

    def _batches(self, columns: Sequence[str], batch_rows: int) -> Iterator[PartBatch]:
        for part in self.parts:
            first_row = 0
            with readable(part.path), pq.ParquetFile(part.path, buffer_size=_READ_BUFFER) as file:
                for batch in file.iter_batches(batch_size=batch_rows, columns=list(columns)):
                    yield PartBatch(part.path, first_row, batch)
                    first_row += batch.num_rows
            if first_row != part.rows:
                raise DataError(
                    f"{part.path}: holds {first_row} rows, not the {part.rows} of its footer; download it again"
                )


def open_folder(folder: Path, name: str) -> PartFolder:
    """The parquet parts of `folder`, footers read; raises DataError where there are none, or one is missing or cut
    short."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is missing; the release keeps the parquet parts of {name} there")
    paths = sorted(folder.glob("*.parquet"), key=lambda path: _natural(path.name))
    if not paths:
        raise DataError(f"{folder}: holds no *.parquet file; the release keeps the parts of {name} there")
    _require_all_numbers(folder, paths)
    return PartFolder(name, tuple(_open_part(path) for path in paths))


def whole_numbers(array: Any, *, null: int) -> np.ndarray:
    """An arrow array of whole numbers -> [n] int64, nulls as `null`; raises ArrowInvalid where one does not fit.

    Doubles are taken where each is whole: that is how pandas writes integers with nulls.
    """
    if pa.types.is_null(array.type):
        return np.full(len(array), null, np.int64)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    array = array.cast(pa.int64())
    if array.null_count:
        array = array.fill_null(null)
    numbers: np.ndarray = array.to_numpy(zero_copy_only=False)
    return numbers


def read_ahead(source: Iterator[Any], depth: int = 2) -> Iterator[Any]:
    """The items of `source`, in order, taken `depth` ahead by a thread: arrow decodes without holding Python's lock."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="parquet") as pool:
        pending = deque(pool.submit(next, source, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, source, end))
            yield item


@contextmanager
def readable(path: Path, kind: str = "parquet") -> Iterator[None]:
    """Turns what arrow and the system say of a file into a DataError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as {kind} ({_first_line(error)}); it is cut short, damaged, or of another kind"
        ) from error


def _open_part(path: Path) -> ParquetPart:
    with readable(path), pq.ParquetFile(path) as file:
        return ParquetPart(path, file.metadata.num_rows, file.schema_arrow)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _natural(name: str) -> list[str | int]:
    """part-2 before part-10. Text and numbers alternate, so like is compared with like."""
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", name)]


def _require_all_numbers(folder: Path, paths: Sequence[Path]) -> None:
    """Raises DataError where names such as part-00000-of-00010.parquet show that a part is missing."""
    numbers: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if match := _NUMBERED_PART.fullmatch(path.stem):
            numbers.setdefault((match["stem"], int(match["total"])), set()).add(int(match["number"]))
    for (stem, total), found in numbers.items():
        first = 0 if 0 in found else 1  # both ways of counting occur
        missing = sorted(set(range(first, first + total)) - found)
        if missing:
            raise DataError(
                f"{folder}: has {len(found)} of {total} parts, {stem}{missing[0]:05d}-of-{total:05d} is missing; "
                "finish the download"
            )
