"""Reads a log of interactions from JSON, CSV or parquet into arrow columns, grouped by user.

Shapes: U users, E events.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pyarrow.types as pt

from grbench.errors import DataError
from grbench_reference.datasets.parquet_parts import open_folder, readable, to_integers

DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t"}  # .inter: RecBole's atomic files
SUFFIXES = (".json", ".parquet", *DELIMITERS)

# Text ids become numbers if all are canonical integers; 007 stays text, since it would become 7.
_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
_LATEST_SECOND = 10**11  # the year 5138; as milliseconds, 1973

SAMPLED_BYTES, SAMPLED_ROWS = 16 << 20, 1 << 20
"""How much of a large log is read to estimate its size: bytes of a text file, rows of parquet."""


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; None = the table has no such column."""

    user: str
    item: str
    timestamp: str | None
    action: str | None


@dataclass(frozen=True)
class Log:
    """Events grouped by user, each user's in order of time or, without times, in file order.

    user_ids: [U] int64 or text, in order of first appearance; lengths: [U] events of each user; items: arrow [E], as in
    the file; times: [E] int64 unix seconds, or None; actions: arrow [E] as in the file, or None.
    """

    user_ids: np.ndarray
    lengths: np.ndarray
    items: Any
    times: np.ndarray | None = None
    actions: Any = None


@dataclass(frozen=True)
class FirstEvents:
    """The first e events of a log, in file order. users: [e] indices of user_ids; user_ids: by first appearance;
    items: arrow [e]; total: estimated number of events of the whole log, exactly e where these are all."""

    users: np.ndarray
    user_ids: np.ndarray
    items: Any
    total: float


def read_json(path: Path) -> Log:
    """Reads {user: [item, ...]}, oldest first; raises DataError where the file is anything else."""

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            names = [name for name, _ in pairs]
            raise DataError(f"{path}: user {next(name for name in names if names.count(name) > 1)!r} occurs twice")
        return content

    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file, object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); it should be {{user: [item, ...]}}") from error
    return _log_of(content, path)


def _log_of(content: Any, path: Path) -> Log:
    if not isinstance(content, dict):
        raise DataError(f"{path}: is a JSON {type(content).__name__}; it should be an object {{user: [item, ...]}}")
    for user, items in content.items():
        if not isinstance(items, list):
            raise DataError(
                f"{path}: user {user!r} has {str(items)[:40]!r}; it should be a list of items, oldest first"
            )
    try:
        items = pa.array(list(itertools.chain.from_iterable(content.values())))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise DataError(f"{path}: items should be all numbers or all text ({str(error).splitlines()[0]})") from error
    lengths = np.fromiter(map(len, content.values()), np.int64, len(content))
    return Log(ids_of(pa.array(list(content), pa.string())), lengths, _ids(items, str(path), "items"))


def read_table(path: Path, columns: Columns) -> Log:
    """Reads a CSV or parquet file, or a folder of parquet files, with one event per row; raises DataError."""
    table = _parquet(path, columns) if path.is_dir() or path.suffix == ".parquet" else _delimited(path, columns)
    users = _ids(table[columns.user], str(path), columns.user).dictionary_encode()
    user = users.indices.to_numpy().astype(np.int64)
    times = None if columns.timestamp is None else _seconds(table[columns.timestamp], str(path), columns.timestamp)
    order = np.argsort(user, kind="stable") if times is None else np.lexsort((times, user))
    items = _ids(table[columns.item], str(path), columns.item)
    return Log(
        user_ids=ids_of(users.dictionary),
        lengths=np.bincount(user, minlength=len(users.dictionary)),
        items=items.take(order),
        times=None if times is None else times[order],
        actions=None if columns.action is None else _flat(table[columns.action]).take(order),
    )


def read_first(path: Path, columns: Columns) -> FirstEvents | None:
    """The first events of a log; None where they cannot be read without the rest. Raises DataError."""
    if path.suffix == ".json":
        return _first_of_json(path)
    names = [columns.user, columns.item]
    if path.is_dir() or path.suffix == ".parquet":
        table, total = _first_of_parquet(path, names)
    else:
        table, total = _first_of_text(path, names)
    users = _ids(table[columns.user], str(path), columns.user).dictionary_encode()
    items = _ids(table[columns.item], str(path), columns.item)
    return FirstEvents(users.indices.to_numpy(), ids_of(users.dictionary), items, total)


def _first_of_json(path: Path) -> FirstEvents | None:
    size = path.stat().st_size
    with path.open("rb") as file:
        text = file.read(SAMPLED_BYTES)
    if len(text) < size:  # cut after the last complete user
        text = text[: text.rfind(b"]") + 1] + b"}"
    try:
        log = _log_of(json.loads(text), path)
    except (ValueError, RecursionError):
        return None
    users = np.repeat(np.arange(len(log.lengths)), log.lengths)
    return FirstEvents(users, log.user_ids, log.items, len(users) * max(1.0, size / len(text)))


def _first_of_parquet(path: Path, names: Sequence[str]) -> tuple[Any, float]:
    tables, rows, total = [], 0, 0
    for part in _parts(path):
        with readable(part), pq.ParquetFile(part) as file:
            _require(part, file.schema_arrow.names, names)
            total += file.metadata.num_rows
            for batch in file.iter_batches(SAMPLED_ROWS, columns=names) if rows < SAMPLED_ROWS else ():
                tables.append(pa.Table.from_batches([batch]))
                rows += batch.num_rows
                if rows >= SAMPLED_ROWS:
                    break
            else:
                tables.append(file.schema_arrow.empty_table().select(names))
    with readable(path, "one table"):
        return pa.concat_tables(tables), total


def _first_of_text(path: Path, names: Sequence[str]) -> tuple[Any, float]:
    """One block as arrow reads it: the complete lines within SAMPLED_BYTES."""
    reading = pyarrow.csv.ReadOptions(block_size=SAMPLED_BYTES)
    with readable(path, "CSV"):
        with pyarrow.csv.open_csv(path, parse_options=_parsing(path)) as file:
            _require(path, file.schema.names, names)
        with pyarrow.csv.open_csv(path, reading, _parsing(path), _converting(names, names)) as file:
            table = pa.Table.from_batches(itertools.islice(file, 1), file.schema)
    return table, len(table) * max(1.0, path.stat().st_size / SAMPLED_BYTES)


def ids_of(distinct: Any) -> np.ndarray:
    """Distinct ids as the store keeps them: [n] int64 where all of them are integers, else text."""
    if pt.is_integer(distinct.type):
        numbers: np.ndarray = distinct.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return numbers
    if pc.all(pc.match_substring_regex(distinct, _INTEGER), min_count=0).as_py():
        return np.asarray(distinct.cast(pa.int64()).to_numpy(zero_copy_only=False))
    return np.array(distinct.to_pylist(), dtype=np.str_)


def _delimited(path: Path, columns: Columns) -> dict[str, Any]:
    names = _column_names(columns)
    with readable(path, "CSV"):
        present = pyarrow.csv.open_csv(path, parse_options=_parsing(path)).schema.names
        _require(path, present, names)
        table = pyarrow.csv.read_csv(
            path,
            parse_options=_parsing(path),
            convert_options=_converting(names, [columns.user, columns.item]),
        )
    return {name: table.column(name) for name in names}


def _parsing(path: Path) -> Any:
    return pyarrow.csv.ParseOptions(delimiter=DELIMITERS[path.suffix])


def _converting(names: Sequence[str], ids: Sequence[str]) -> Any:
    return pyarrow.csv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(ids, pa.large_string()),
        null_values=[""],  # NA and null may be names
        strings_can_be_null=True,
    )


def _parquet(path: Path, columns: Columns) -> dict[str, Any]:
    names = _column_names(columns)
    tables = []
    for part in _parts(path):
        with readable(part, "parquet"):
            _require(part, pq.read_schema(part).names, names)
            tables.append(pq.read_table(part, columns=names))
    with readable(path, "one table"):
        table = pa.concat_tables(tables)
    return {name: table.column(name) for name in names}


def _parts(path: Path) -> list[Path]:
    return [part.path for part in open_folder(path, "the interactions").parts] if path.is_dir() else [path]


def _column_names(columns: Columns) -> list[str]:
    named = (columns.user, columns.item, columns.timestamp, columns.action)
    return [name for name in named if name is not None]


def _require(path: Path, present: Sequence[str], names: Sequence[str]) -> None:
    """Raises DataError unless all `names` are among the columns `present`."""
    for name in names:
        if name not in present:
            raise DataError(
                f"{path}: has no column {name}; it has {', '.join(present)}. The options user, item, timestamp and "
                "action name its columns; timestamp: null means that it has no times"
            )


def _flat(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _ids(column: Any, where: str, name: str) -> Any:
    """A column of ids as int64 or large text; raises DataError where one is null or of another type."""
    array = _flat(column)
    if pt.is_null(array.type) and not len(array):
        return array.cast(pa.int64())
    if pt.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if not (pt.is_integer(array.type) or pt.is_string(array.type) or pt.is_large_string(array.type)):
        raise DataError(f"{where}: {name} are {array.type}; ids should be integers or text")
    if array.null_count:
        row = int(pc.index(pc.is_null(array), True).as_py())
        raise DataError(f"{where}, row {row}: {name} is missing; each event needs a user and an item")
    return array.cast(pa.int64() if pt.is_integer(array.type) else pa.large_string())


def _seconds(column: Any, where: str, name: str) -> np.ndarray:
    """A column of times as [E] int64 unix seconds; raises DataError where one is missing or not plausible."""
    array = _flat(column)
    if pt.is_date(array.type) or pt.is_timestamp(array.type):
        array = array.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    elif pt.is_floating(array.type):
        array = pc.floor(array)
    elif not pt.is_integer(array.type):
        raise DataError(f"{where}: column {name} is {array.type}; it should be unix seconds, or dates and times")
    missing = -(2**63)
    try:
        seconds = to_integers(array, null=missing)
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: column {name} should be unix seconds ({error})") from error
    wrong = (seconds == missing) | (seconds > _LATEST_SECOND)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = "no time" if seconds[row] == missing else f"{seconds[row]}, which may be milliseconds"
        raise DataError(f"{where}, row {row}: column {name} has {found}; each event needs unix seconds")
    return seconds
