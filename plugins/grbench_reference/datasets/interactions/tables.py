"""Tables of one event a row, in delimited text or parquet, as arrow tables of the columns that are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from grbench.errors import DataError, cut
from grbench_reference.datasets.interactions.options import LogFormat
from grbench_reference.datasets.interactions.source import DELIMITERS, kind_of
from grbench_reference.datasets.parquet_parts import readable

TextOpener = Callable[[], Any]
"""Opens the text of a file as an arrow stream."""

# RecBole writes the type of a column behind its name: user_id:token.
_TYPED = re.compile(r"(?P<name>.*):(token|float|token_seq|float_seq)")
# The fields of these files are whatever is between the delimiters: a quotation mark is a character like any other.
_UNQUOTED = ("\t", " ")
_COUNTED_BYTES = 1 << 24


def read_delimited(path: Path, opened: TextOpener, form: LogFormat, columns: Sequence[str]) -> Any:
    """`columns` of a file of delimited text, those of ids as text; raises DataError. path: for suffix and messages."""
    reading = pyarrow.csv.ReadOptions(autogenerate_column_names=not form.header)
    delimiter = _delimiter(path, form)
    parsing = pyarrow.csv.ParseOptions(
        delimiter=delimiter,
        quote_char=False if delimiter in _UNQUOTED else '"',
        newlines_in_values=delimiter not in _UNQUOTED,
    )
    with readable(path, "CSV"):
        present = pyarrow.csv.open_csv(opened(), reading, parsing).schema.names
        places = _places(path, present if form.header else list(map(str, range(len(present)))), columns)
        found = [present[place] for place in places]
        text = {
            name for name, column in zip(found, columns, strict=True) if column not in (form.timestamp, form.action)
        }
        converting = pyarrow.csv.ConvertOptions(
            include_columns=found,
            column_types=dict.fromkeys(text, pa.large_string()),
            null_values=[""],  # NA and null may be names
            strings_can_be_null=True,
        )
        return pyarrow.csv.read_csv(opened(), reading, parsing, converting).rename_columns(list(columns))


def lines_without_row(path: Path, opened: TextOpener, form: LogFormat, rows: int) -> int:
    """How many lines of a file of delimited text are no row: blank, or inside a quoted text of the row before."""
    if _delimiter(path, form) in _UNQUOTED:
        return 0
    lines, last = 0, b""
    with opened() as stream:
        while block := stream.read(_COUNTED_BYTES):
            lines, last = lines + block.count(b"\n"), block[-1:]
    return max(0, lines + (last not in (b"", b"\n")) - form.header - rows)


def read_parquet(path: Path, columns: Sequence[str], rows: int | None = None) -> Any:
    """`columns` of a parquet file, its first `rows` rows or, by default, all; raises DataError."""
    with readable(path), pq.ParquetFile(path) as file:
        names = [field.name for field in file.schema_arrow]
        found = [names[place] for place in _places(path, names, columns)]
        if rows is None:
            return file.read(columns=found).select(found).rename_columns(list(columns))
        batches: list[Any] = []
        for batch in file.iter_batches(rows, columns=found):
            batches.append(batch)
            if sum(each.num_rows for each in batches) >= rows:
                break
        table = pa.Table.from_batches(batches) if batches else file.schema_arrow.empty_table()
        return table.select(found).rename_columns(list(columns))


def parquet_rows(path: Path) -> int:
    """The number of rows of a parquet file, from its footer; raises DataError."""
    with readable(path), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def _delimiter(path: Path, form: LogFormat) -> str:
    delimiter = form.delimiter or DELIMITERS.get(kind_of(path))
    if delimiter is None:
        raise DataError(f"{path}: the option delimiter should say what is between the fields of this table")
    return delimiter


def _places(path: Path, present: Sequence[str], columns: Sequence[str]) -> list[int]:
    """Where each of `columns` is among the names `present`, exactly or without white space and RecBole's types; raises
    DataError unless it is there once."""
    bare = [name.strip() for name in present]
    shown = cut(", ".join(present), 500)
    untyped = [match["name"] if (match := _TYPED.fullmatch(name)) else name for name in bare]
    places = []
    for column in columns:
        named = next((names for names in (present, bare, untyped) if column in names), ())
        found = [place for place, name in enumerate(named) if name == column]
        if not found:
            raise DataError(
                f"{path}: has no column {column}; it has {shown}. The options user, item, timestamp and "
                "action name its columns; timestamp: null means that it has no times, header: false that its first "
                "row is an event and columns are numbered from 0; delimiter is what is between its fields"
            )
        if len(found) > 1:
            raise DataError(f"{path}: has the column {column} {len(found)} times; its columns are {shown}")
        places += found
    return places
