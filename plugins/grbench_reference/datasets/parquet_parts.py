"""A folder of parquet files, checked by their footers and read as a stream of record batches.

Only a few batches are in memory at a time. Error messages name the file and, where known, the column and the row
(counted from 0 within the file).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grbench.errors import DataError, cut, first_line
from grbench.types import Progress

FaultHandler = Callable[[DataError], None]
"""Called with each fault in the data. Ingest raises it; validation records it, and reading skips the rows."""

# Column chunks are read through a buffer of this many bytes; without one, arrow loads whole chunks.
_READ_BUFFER = 1 << 20

_NUMBERED_PART = re.compile(r"(?P<stem>.*?)(?P<number>\d+)-of-(?P<total>\d+)(?P<rest>.*)")


def raise_fault(error: DataError) -> None:
    """The FaultHandler that raises."""
    raise error


@dataclass(frozen=True)
class ColumnType:
    """The type that a column should have: a description for messages, and a predicate of arrow types."""

    description: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class ParquetPart:
    """One parquet file: path, and rows and schema from its footer."""

    path: Path
    rows: int
    schema: Any


@dataclass(frozen=True)
class PartBatch:
    """A batch of rows of one part. first_row: its first row, counted within the part."""

    path: Path
    first_row: int
    columns: Any

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    def array(self, column: str) -> Any:
        """The column as an arrow array."""
        return self.columns.column(column)

    def integers(self, column: str, *, null: int) -> np.ndarray:
        """The column as [rows] int64; nulls become `null`."""
        with self.reading(column):
            return to_integers(self.array(column), null=null)

    def error(self, problem: str, *, column: str | None = None, row: int | None = None) -> DataError:
        """A DataError that names file, row and column. row: counted within this batch."""
        where = str(self.path)
        if row is not None:
            where += f", row {self.first_row + row}"
        if column is not None:
            where += f", column {column}"
        return DataError(f"{where}: {problem}")

    @contextmanager
    def reading(self, column: str) -> Iterator[None]:
        """Converts arrow's errors about values of the wrong type into a DataError."""
        try:
            yield
        except pa.ArrowInvalid as error:
            raise self.error(
                f"a value has the wrong type or is out of range ({first_line(error)})", column=column
            ) from error


@dataclass(frozen=True)
class PartFolder:
    """A table stored as the parquet files of one folder, in the order of their numbers."""

    name: str
    parts: tuple[ParquetPart, ...]

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    def num_values(self, column: str) -> int:
        """The number of values of a column, from the footers. For a list column these are the elements; nulls and empty
        lists count 1."""
        return sum(
            next(chunk.num_values for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
            for chunks in self._chunks()
        )

    def largest(self, column: str) -> int | None:
        """The largest value of an integer column, from the footers; None where one of them lacks the statistics."""
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
                        f"{part.path}: has no column {column} ({expected.description}); it has "
                        f"{cut(', '.join(part.schema.names), 500)}"
                    )
                if part.schema.names.count(column) > 1:
                    raise DataError(f"{part.path}: has more than one column {column}")
                found = part.schema.field(column).type
                if not expected.fits(found):
                    raise DataError(f"{part.path}: column {column} is {found}; it should be {expected.description}")

    def others(self, columns: Collection[str]) -> list[str]:
        """The columns of any part that are not among these."""
        found = dict.fromkeys(name for part in self.parts for name in part.schema.names)
        return [name for name in found if name not in columns]

    def stream(self, columns: Sequence[str], *, batch_rows: int, report: Progress) -> Iterator[PartBatch]:
        """All rows of all parts in order, in batches; the next batches are decoded in a thread."""
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
                    f"{part.path}: has {first_row} rows, but its footer says {part.rows}; download it again"
                )


def open_folder(folder: Path, name: str) -> PartFolder:
    """The parquet files of `folder` with their footers. Raises DataError where there are none, or one is missing or
    truncated."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is missing; it should hold the parquet files of {name}")
    paths = sorted(folder.glob("*.parquet"), key=lambda path: natural_order(path.name))
    if not paths:
        raise DataError(f"{folder}: has no *.parquet file; it should hold the parquet files of {name}")
    require_all_numbers(folder, paths)
    return PartFolder(name, tuple(_open_part(path) for path in paths))


def to_integers(array: Any, *, null: int) -> np.ndarray:
    """An arrow array of integers -> [n] int64, nulls as `null`; raises ArrowInvalid where a value is no int64.

    Floats are accepted if all are integral, because pandas writes integers with nulls as floats.
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
    """The elements of `source` in order, `depth` of them prefetched by a thread; arrow decodes without the GIL."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="parquet") as pool:
        pending = deque(pool.submit(next, source, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, source, end))
            yield item


@contextmanager
def readable(path: Path, kind: str = "parquet") -> Iterator[None]:
    """Converts errors of arrow and of the system while reading `path` into a DataError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 ({error.object[:40]!r}); convert it, for example with iconv -t UTF-8"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as {kind} ({first_line(error)}); it is truncated, damaged, or not {kind}"
        ) from error


def _open_part(path: Path) -> ParquetPart:
    with readable(path), pq.ParquetFile(path) as file:
        return ParquetPart(path, file.metadata.num_rows, file.schema_arrow)


def natural_order(name: str) -> list[str | int]:
    """A sort key that puts part-2 before part-10: text and numbers alternate."""
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", name)]


def require_all_numbers(folder: Path, paths: Sequence[Path]) -> None:
    """Raises DataError where file names such as part-00000-of-00010.parquet show that a part is missing."""
    numbers: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if match := _NUMBERED_PART.fullmatch(path.stem):
            numbers.setdefault((match["stem"], int(match["total"])), set()).add(int(match["number"]))
    for (stem, total), found in numbers.items():
        first = 0 if 0 in found else 1  # numbers start at 0 or at 1
        missing = sorted(set(range(first, first + total)) - found)
        if missing:
            raise DataError(
                f"{folder}: has {len(found)} of {total} parts, {stem}{missing[0]:05d}-of-{total:05d} is missing; "
                "finish the download"
            )
