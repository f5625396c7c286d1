"""Reads `item_feat` and `user_feat` into tables of feature codes.

Shapes: n rows of one batch, v values of a feature in these rows, C columns of the table.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.types as pt

from grbench.data.store import Field
from grbench.types import FIRST_VALUE, MISSING, Progress
from grbench_reference.datasets.parquet_parts import FaultHandler, PartBatch, PartFolder, to_integers
from grbench_reference.datasets.tencentgr.layout import LIST_FEATURES

LARGEST_VALUE = 2**31 - 1 - FIRST_VALUE  # a code is an int32

NULL = -(2**63)  # stands for null

_BATCH_ROWS = 65_536
_BLOCK_ROWS = 1 << 20  # of a memory-mapped table, filled at once


@dataclass(frozen=True)
class FeatureColumn:
    """One feature of n rows. values: [v] int64, NULL = null; lengths: [n], number of values of each row, None = one per
    row."""

    values: np.ndarray
    lengths: np.ndarray | None = None

    def codes(self, width: int) -> np.ndarray:
        """[n, width] int32 feature codes. A row without values gets one MISSING; short lists are padded with 0."""
        codes = np.where(self.values == NULL, MISSING, self.values + FIRST_VALUE).astype(np.int32)
        if self.lengths is None:
            table = np.zeros((len(codes), width), np.int32)
            table[:, 0] = codes
            return table
        table = np.zeros((len(self.lengths), width), np.int32)
        table[np.arange(width) < self.lengths[:, None]] = codes
        table[self.lengths == 0, 0] = MISSING
        return table

    def has_value(self) -> np.ndarray:
        """[n] bool: the row has at least one value."""
        if self.lengths is None:
            return np.asarray(self.values != NULL)
        has_value = np.zeros(len(self.lengths), np.bool_)
        has_value[np.repeat(np.arange(len(self.lengths)), self.lengths)[self.values != NULL]] = True
        return has_value


@dataclass
class FeatureProfile:
    """Statistics of a feature. present: rows with a value; largest: value; width: length of the longest list."""

    rows: int = 0
    present: int = 0
    nulls_in_lists: int = 0
    largest: int = 0
    width: int = 1

    def add(self, column: FeatureColumn) -> None:
        """Adds one batch."""
        has_value = column.has_value()
        self.rows += len(has_value)
        self.present += int(has_value.sum())
        self.largest = max(self.largest, int(column.values.max(initial=0)))
        if column.lengths is not None:
            self.nulls_in_lists += int((column.values == NULL).sum())
            self.width = max(self.width, int(column.lengths.max(initial=1)))


def longest_list_lengths(folder: PartFolder, features: Sequence[str], *, report: Progress) -> dict[str, int]:
    """The length of the longest list of each feature, at least 1, which decides the number of its columns."""
    longest = dict.fromkeys(features, 1)
    for batch in folder.stream(features, batch_rows=_BATCH_ROWS, report=report):
        for feature in features:
            lists = batch.array(feature)
            if not pt.is_null(lists.type):
                longest[feature] = max(longest[feature], pc.max(pc.list_value_length(lists)).as_py() or 1)
    return longest


def make_fields(profiles: Mapping[str, FeatureProfile], vocabulary: Mapping[str, int]) -> tuple[Field, ...]:
    """Columns and sizes of a feature table. A size covers all values of the profile and of the indexer's `vocabulary`,
    and the codes for padding, missing and unknown."""
    fields, start = [], 0
    for feature, profile in profiles.items():
        largest = max(profile.largest, vocabulary.get(feature, 0))
        fields.append(Field(feature, size=largest + 1 + FIRST_VALUE, start=start, width=profile.width))
        start += profile.width
    return tuple(fields)


def fill_missing(table: np.ndarray, fields: Sequence[Field], *, first_row: int) -> None:
    """Sets all features of the rows from `first_row` on to missing."""
    row = np.zeros(table.shape[1], table.dtype)
    row[[field.start for field in fields]] = MISSING
    for start in range(first_row, len(table), _BLOCK_ROWS):
        table[start : start + _BLOCK_ROWS] = row
        release_pages(table)


def release_pages(values: np.ndarray) -> None:
    """Releases the resident pages of a memory-mapped array, which otherwise add up to the whole file in the process's
    memory. Written data stays in the file."""
    pages: object = values.base
    if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def feature_rows(
    folder: PartFolder,
    id_column: str,
    fields: Sequence[Field],
    rows_of: Callable[[PartBatch, np.ndarray], np.ndarray],
    *,
    profiles: Mapping[str, FeatureProfile],
    on_fault: FaultHandler,
    report: Progress,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (rows [n], codes [n, C]) for each batch, of the ids for which `rows_of` gives a row (not -1).

    Of `fields` only names and columns are used, not sizes. All rows are added to `profiles`.
    """
    columns = sum(field.width for field in fields)
    for batch in folder.stream([id_column, *(field.name for field in fields)], batch_rows=_BATCH_ROWS, report=report):
        rows = rows_of(batch, batch.integers(id_column, null=NULL))
        codes = np.empty((len(batch), columns), np.int32)
        for field in fields:
            column = read_feature_column(batch, field.name, on_fault)
            profiles[field.name].add(column)
            codes[:, field.start : field.start + field.width] = column.codes(field.width)
        known = rows >= 0
        yield (rows, codes) if known.all() else (rows[known], codes[known])


def read_feature_column(batch: PartBatch, feature: str, on_fault: FaultHandler) -> FeatureColumn:
    """One feature of one batch; values out of range are reported to `on_fault` and become null."""
    array = batch.array(feature)
    lengths = None
    with batch.reading(feature):
        if pt.is_null(array.type):
            return FeatureColumn(np.full(len(batch), NULL))
        if feature in LIST_FEATURES:
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
            array = array.flatten()
        values = to_integers(array, null=NULL)
    wrong = (values > LARGEST_VALUE) | ((values < 0) & (values != NULL))
    if wrong.any():
        fault = f"{int(wrong.sum())} value(s) such as {values[wrong][0]}; values are 0 to {LARGEST_VALUE}"
        on_fault(batch.error(fault, column=feature, row=_first_row(wrong, lengths)))
        values = np.where(wrong, NULL, values)
    return FeatureColumn(values, lengths)


def _first_row(wrong: np.ndarray, lengths: np.ndarray | None) -> int:
    place = int(np.flatnonzero(wrong)[0])
    return place if lengths is None else int(np.searchsorted(np.cumsum(lengths), place, side="right"))
