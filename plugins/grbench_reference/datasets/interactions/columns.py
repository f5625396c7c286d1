"""Columns of a log as files hold them -> ids and times. Shapes: E events, n distinct ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from grbench.errors import DataError, first_line
from grbench_reference.datasets.interactions.options import TimeUnit
from grbench_reference.datasets.parquet_parts import readable

# Text ids become numbers if all are canonical integers; 007 stays text, since it would become 7.
_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
_LATEST_SECOND = 10**11  # the year 5138; as milliseconds, 1973
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WIDEST_DECIMAL = pa.decimal256(76, 0)


@dataclass(frozen=True)
class IdColumn:
    """A column of ids. values: [n] the distinct ones, int64 or numpy's StringDType, by first appearance; rows: [E]
    int64, each event's index of `values`; trimmed: how many of the ids as written had white space around them."""

    values: np.ndarray
    rows: np.ndarray
    trimmed: int = 0


@dataclass(frozen=True)
class TimeColumn:
    """seconds: [E] int64, unix seconds rounded down; fractions: [E] float64 of a second, None where all are 0."""

    seconds: np.ndarray
    fractions: np.ndarray | None

    def take(self, order: np.ndarray) -> TimeColumn:
        """The times in another order, or a part of them."""
        return TimeColumn(self.seconds[order], None if self.fractions is None else self.fractions[order])

    def repeated(self) -> np.ndarray:
        """[E] bool: whether a time equals the one before; False for the first."""
        equal = np.zeros(len(self.seconds), np.bool_)
        equal[1:] = self.seconds[1:] == self.seconds[:-1]
        if self.fractions is not None:
            equal[1:] &= self.fractions[1:] == self.fractions[:-1]
        return equal


def read_ids(columns: Sequence[tuple[str, Any]], name: str) -> IdColumn:
    """The column `name` of all parts of a log as ids. columns: (where it is, for messages; arrow column) of each part.

    Integers of any width and whole decimals are numbers, or text where one is larger than int64; text of any encoding
    is text, without the white space around it. Raises DataError naming part and row of a missing id, and part and
    column where a type is neither, or another than in the part before.
    """
    arrays: list[Any] = []
    for where, column in columns:
        array = _plain(column)
        if pt.is_null(array.type) and not len(array):
            continue
        if not (pt.is_integer(array.type) or pt.is_large_string(array.type)):
            array = _whole_decimals(array, where, name)
        if array.null_count:
            row = int(pc.index(pc.is_null(array), True).as_py())
            raise DataError(f"{where}, row {row}: {name} is missing; each event needs a user and an item")
        if arrays and pt.is_large_string(arrays[0].type) != pt.is_large_string(array.type):
            raise DataError(
                f"{where}: column {name} is {column.type}, but {columns[0][1].type} in {columns[0][0]}; "
                "ids should be integers in all parts, or text in all"
            )
        arrays.append(array)
    place = columns[0][0] if len(columns) == 1 else f"{columns[0][0]} and {len(columns) - 1} other parts"
    with readable(Path(place), "UTF-8 text"):
        ids = encode_ids(pa.chunked_array(_joined(arrays), None if arrays else pa.int64()))
    if ids.values.dtype.kind == "T" and len(ids.values):
        if (empty := np.flatnonzero(ids.values == "")).size:
            row = int(np.flatnonzero(ids.rows == empty[0])[0])
            raise DataError(f"{place}, row {row}: {name} is empty text; each event needs a user and an item")
        if pc.all(pc.match_substring_regex(pa.array(ids.values.astype(object)), r"^\[.*\]$")).as_py():
            raise DataError(
                f"{place}: column {name} holds lists, such as {str(ids.values[0])[:40]}; a column of lists is read "
                "with the option history, which names it"
            )
    return ids


def encode_ids(column: Any) -> IdColumn:
    """A chunked arrow column [E] of int64 or large text, without nulls, as IdColumn."""
    encoded = column.combine_chunks().dictionary_encode()
    values, rows, trimmed = encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), 0
    if not pt.is_integer(values.type):
        bare = pc.utf8_trim_whitespace(values)
        trimmed = pc.sum(pc.not_equal(bare, values), min_count=0).as_py()
        if trimmed:
            again = bare.dictionary_encode()
            values, rows = again.dictionary, again.indices.to_numpy(zero_copy_only=False).astype(np.int64)[rows]
    return IdColumn(ids_of(values), rows, trimmed)


def ids_of(distinct: Any) -> np.ndarray:
    """Distinct ids [n] as the store keeps them: int64 where all of them are integers, else text (StringDType)."""
    if pt.is_integer(distinct.type) or pc.all(pc.match_substring_regex(distinct, _INTEGER), min_count=0).as_py():
        numbers: np.ndarray = distinct.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return numbers
    return np.asarray(distinct.to_numpy(zero_copy_only=False)).astype(np.dtypes.StringDType())


def stored_bytes(ids: np.ndarray) -> float:
    """Bytes that the store takes for one of the ids, on average: 8, and for text its own besides."""
    if ids.dtype.kind != "T" or not len(ids):
        return 8
    return 8 + float(pc.mean(pc.binary_length(pa.array(ids.astype(object)))).as_py())


def read_times(columns: Sequence[tuple[str, Any]], name: str, unit: TimeUnit) -> TimeColumn:
    """The column `name` of all parts as times; numbers are in `unit` since 1970. Raises DataError naming part and row
    of a time that is missing or not plausible."""
    times = [_times(_plain(column), where, name, unit) for where, column in columns]
    seconds = np.concatenate([each.seconds for each in times])
    if all(each.fractions is None for each in times):
        return TimeColumn(seconds, None)
    fractions = [np.zeros(len(each.seconds)) if each.fractions is None else each.fractions for each in times]
    return TimeColumn(seconds, np.concatenate(fractions))


def read_actions(columns: Sequence[tuple[str, Any]], name: str) -> Any:
    """The column `name` of all parts as one arrow column; raises DataError where the parts' types differ."""
    arrays = [_plain(column) for _, column in columns]
    kinds = {array.type for array in arrays if not pt.is_null(array.type)}
    if len(kinds) > 1 and all(pt.is_integer(kind) or pt.is_floating(kind) for kind in kinds):
        kinds = {pa.float64() if any(pt.is_floating(kind) for kind in kinds) else pa.int64()}
    if len(kinds) > 1:
        first = next(index for index, array in enumerate(arrays) if array.type != arrays[0].type)
        raise DataError(
            f"{columns[first][0]}: column {name} is {columns[first][1].type}, but {columns[0][1].type} in "
            f"{columns[0][0]}; actions should be integers in all parts, or text in all"
        )
    kind = next(iter(kinds), pa.null())
    return pa.concat_arrays([array.cast(kind) for array in arrays])


def _plain(column: Any) -> Any:
    """An arrow column in one array, with dictionaries decoded and text of any kind as large text."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pt.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if not (pt.is_string(array.type) or pt.is_string_view(array.type)):
        return array
    try:
        return array.cast(pa.large_string())
    except pa.ArrowNotImplementedError:  # early releases with views of text do not cast them
        return pa.array(array.to_pylist(), pa.large_string())


def _whole_decimals(array: Any, where: str, name: str) -> Any:
    """Decimals without their zero fraction; raises DataError for any other type."""
    if not pt.is_decimal(array.type):
        hint = "; lists are read with the option history" if pt.is_nested(array.type) else ""
        raise DataError(f"{where}: {name} is {array.type}; ids should be integers or text{hint}")
    try:
        return array.cast(_WIDEST_DECIMAL)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where}: {name} is {array.type}, and not whole ({first_line(error)}); ids should be whole"
        ) from error


def _joined(arrays: Sequence[Any]) -> list[Any]:
    """Arrays of integers or decimals as int64 or, where one has a larger number, all as text."""
    if arrays and pt.is_large_string(arrays[0].type):
        return list(arrays)
    try:
        return [array.cast(pa.int64()) for array in arrays]
    except pa.ArrowInvalid:
        return [array.cast(pa.large_string()) for array in arrays]


def _times(array: Any, where: str, name: str, unit: TimeUnit) -> TimeColumn:
    """One part's times."""
    if pt.is_date(array.type):
        array = array.cast(pa.timestamp("s" if pt.is_date32(array.type) else "ms"))
    if pt.is_timestamp(array.type):
        unit, array = array.type.unit, array.cast(pa.int64())
    if pt.is_floating(array.type) or pt.is_decimal(array.type):
        numbers = array.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
        missing = ~np.isfinite(numbers)
    elif pt.is_integer(array.type) or pt.is_null(array.type):
        missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False))
        try:
            numbers = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid as error:
            raise DataError(f"{where}: column {name} should be unix seconds ({first_line(error)})") from error
    else:
        kind = "string" if pt.is_large_string(array.type) else array.type
        raise DataError(f"{where}: column {name} is {kind}; it should be unix seconds, or dates and times")
    whole, rest = np.divmod(np.where(missing, 0, numbers), _PER_SECOND[unit])
    wrong = missing | (whole > _LATEST_SECOND)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = "no time" if missing[row] else f"{numbers[row]}, which may be milliseconds (option time_unit)"
        raise DataError(f"{where}, row {row}: column {name} has {found}; each event needs unix seconds")
    return TimeColumn(whole.astype(np.int64), rest / _PER_SECOND[unit] if rest.any() else None)
