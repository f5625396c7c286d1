"""Reads `item_feat` and `user_feat` into tables of feature codes.

Shapes: n rows of one batch, v values in their cells, C columns of the table.
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
from grbench_reference.datasets.parquet_parts import Complain, PartBatch, PartFolder, whole_numbers
from grbench_reference.datasets.tencentgr.layout import LIST_FEATURES

LARGEST_VALUE = 2**31 - 1 - FIRST_VALUE  # a code is an int32

NULL = -(2**63)  # stands for a null value; no value is this

_BATCH_ROWS = 65_536
_BLOCK_ROWS = 1 << 20  # of a mapped table that are filled at a time


@dataclass(frozen=True)
class Cells:
    """One feature of n rows. values: [v] int64, NULL for a null one; lengths: [n] values a row, None where each row has
    exactly one."""

    values: np.ndarray
    lengths: np.ndarray | None = None

    def codes(self, width: int) -> np.ndarray:
        """[n, width] int32 feature codes: a cell without any value is one MISSING, the rest of a short one padding."""
        codes = np.where(self.values == NULL, MISSING, self.values + FIRST_VALUE).astype(np.int32)
        if self.lengths is None:
            table = np.zeros((len(codes), width), np.int32)
            table[:, 0] = codes
            return table
        table = np.zeros((len(self.lengths), width), np.int32)
        table[np.arange(width) < self.lengths[:, None]] = codes
        table[self.lengths == 0, 0] = MISSING
        return table

    def valued(self) -> np.ndarray:
        """[n] bool: the rows with at least one value."""
        if self.lengths is None:
            return np.asarray(self.values != NULL)
        valued = np.zeros(len(self.lengths), np.bool_)
        valued[np.repeat(np.arange(len(self.lengths)), self.lengths)[self.values != NULL]] = True
        return valued


@dataclass
class FeatureProfile:
    """What a feature's column holds. `present` counts the rows with a value, `width` is the longest list."""

    rows: int = 0
    present: int = 0
    nulls_in_lists: int = 0
    largest: int = 0
    width: int = 1

    def add(self, cells: Cells) -> None:
        """Takes in one batch."""
        valued = cells.valued()
        self.rows += len(valued)
        self.present += int(valued.sum())
        self.largest = max(self.largest, int(cells.values.max(initial=0)))
        if cells.lengths is not None:
            self.nulls_in_lists += int((cells.values == NULL).sum())
            self.width = max(self.width, int(cells.lengths.max(initial=1)))


def longest_lists(folder: PartFolder, features: Sequence[str], *, report: Progress) -> dict[str, int]:
    """How many values the longest list of each of these has, at least 1: what the columns of a table depend on."""
    longest = dict.fromkeys(features, 1)
    for batch in folder.stream(features, batch_rows=_BATCH_ROWS, report=report):
        for feature in features:
            lists = batch.array(feature)
            if not pt.is_null(lists.type):
                longest[feature] = max(longest[feature], pc.max(pc.list_value_length(lists)).as_py() or 1)
    return longest


def make_fields(profiles: Mapping[str, FeatureProfile], vocabulary: Mapping[str, int]) -> tuple[Field, ...]:
    """Columns and sizes of a feature table. A size covers every value that was met and the indexer's `vocabulary`, and
    the codes for padding, missing and unknown."""
    fields, start = [], 0
    for feature, profile in profiles.items():
        largest = max(profile.largest, vocabulary.get(feature, 0))
        fields.append(Field(feature, size=largest + 1 + FIRST_VALUE, start=start, width=profile.width))
        start += profile.width
    return tuple(fields)


def fill_missing(table: np.ndarray, fields: Sequence[Field], *, first_row: int) -> None:
    """Marks every feature of every row as missing, from `first_row` on."""
    row = np.zeros(table.shape[1], table.dtype)
    row[[field.start for field in fields]] = MISSING
    for start in range(first_row, len(table), _BLOCK_ROWS):
        table[start : start + _BLOCK_ROWS] = row
        release_pages(table)


def release_pages(values: np.ndarray) -> None:
    """Lets go of a map's pages, which otherwise count as this process's memory until the whole file is in it. What was
    written stays in the file."""
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
    complain: Complain,
    report: Progress,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows [n], codes [n, C]) batch by batch, for the ids that `rows_of` gives a row (not -1). Of `fields` only the
    columns count; `profiles` take in every cell, also of rows that are not given."""
    columns = sum(field.width for field in fields)
    for batch in folder.stream([id_column, *(field.name for field in fields)], batch_rows=_BATCH_ROWS, report=report):
        rows = rows_of(batch, batch.whole(id_column, null=NULL))
        codes = np.empty((len(batch), columns), np.int32)
        for field in fields:
            cells = read_cells(batch, field.name, complain)
            profiles[field.name].add(cells)
            codes[:, field.start : field.start + field.width] = cells.codes(field.width)
        known = rows >= 0
        yield (rows, codes) if known.all() else (rows[known], codes[known])


def read_cells(batch: PartBatch, feature: str, complain: Complain) -> Cells:
    """One feature of one batch; complains of values that no code can stand for, and takes them as null."""
    array = batch.array(feature)
    lengths = None
    with batch.reading(feature):
        if pt.is_null(array.type):
            return Cells(np.full(len(batch), NULL))
        if feature in LIST_FEATURES:
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
            array = array.flatten()
        values = whole_numbers(array, null=NULL)
    wrong = (values > LARGEST_VALUE) | ((values < 0) & (values != NULL))
    if wrong.any():
        fault = f"{int(wrong.sum())} value(s) such as {values[wrong][0]}; values are 0 to {LARGEST_VALUE}"
        complain(batch.error(fault, column=feature, row=_first_row(wrong, lengths)))
        values = np.where(wrong, NULL, values)
    return Cells(values, lengths)


def _first_row(wrong: np.ndarray, lengths: np.ndarray | None) -> int:
    place = int(np.flatnonzero(wrong)[0])
    return place if lengths is None else int(np.searchsorted(np.cumsum(lengths), place, side="right"))
