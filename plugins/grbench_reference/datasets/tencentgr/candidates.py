"""Reads `candidate`, the pool that is ranked, in both of its spellings.

Ids are raw (OIDs), and not every candidate is in the catalogue. A feature is a struct: its value as a decimal string,
and a flag where training never saw that value, which is then some raw number that must not be taken for a value id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from grbench.data.store import Field
from grbench.types import FIRST_VALUE, MISSING, UNKNOWN, Progress
from grbench_reference.datasets.parquet_parts import Complain, PartBatch, PartFolder, whole_numbers
from grbench_reference.datasets.tencentgr.id_lookup import IdLookup
from grbench_reference.datasets.tencentgr.layout import candidate_spelling

_BATCH_ROWS = 65_536
_NULL = -(2**63)
_WHOLE = r"^[0-9]{1,18}$"


@dataclass
class CandidateCounts:
    """What was met in the features of the candidates, in cells; each UNKNOWN one is counted under one reason."""

    missing: int = 0
    flagged_cold: int = 0
    not_a_number: int = 0
    beyond_vocabulary: int = 0


def read_candidate_ids(folder: PartFolder, *, complain: Complain, report: Progress) -> np.ndarray:
    """OIDs [rows] int64 in file order; complains of a missing one."""
    column = candidate_spelling(folder).item
    found = [
        raw_ids(batch, column, complain) for batch in folder.stream([column], batch_rows=_BATCH_ROWS, report=report)
    ]
    ids = np.concatenate(found) if found else np.empty(0, np.int64)
    given: np.ndarray = ids[ids != _NULL]
    return given


def raw_ids(batch: PartBatch, column: str, complain: Complain) -> np.ndarray:
    """A column of OIDs, numbers or decimal strings, as [rows] int64; complains of what is neither (-2^63 then)."""
    array = batch.array(column)
    if pt.is_string(array.type) or pt.is_large_string(array.type):
        numbers, wrong = _parse(array)
    else:
        with batch.reading(column):
            numbers = whole_numbers(array, null=_NULL)
        wrong = numbers == _NULL
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = array[row].as_py()
        complain(batch.error(f"{found!r} is no raw item id (a whole number in decimals)", column=column, row=row))
    return numbers


def candidate_features(
    folder: PartFolder,
    fields: Sequence[Field],
    lookup: IdLookup,
    *,
    counts: CandidateCounts,
    complain: Complain,
    report: Progress,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows [n] of the catalogue, codes [n, C]) batch by batch, for the candidates whose OID `lookup` finds."""
    spelling = candidate_spelling(folder)
    columns = [spelling.item, *(field.name for field in fields)]
    for batch in folder.stream(columns, batch_rows=_BATCH_ROWS, report=report):
        codes = np.empty((len(batch), len(fields)), np.int32)
        for column, field in enumerate(fields):
            with batch.reading(field.name):
                codes[:, column] = candidate_codes(batch.array(field.name), spelling.flag, field.size, counts)
        rows = lookup.find(raw_ids(batch, spelling.item, complain))
        yield rows[rows >= 0], codes[rows >= 0]


def candidate_codes(cells: pa.Array, flag: str, size: int, counts: CandidateCounts) -> np.ndarray:
    """Feature structs [n] -> codes [n] int32 below `size`: null is MISSING; flagged, unreadable or never seen before is
    UNKNOWN. A flag counts even where the value beside it is null: then the ad has one, but training had not."""
    if pt.is_null(cells.type):
        counts.missing += len(cells)
        return np.full(len(cells), MISSING, np.int32)
    flags = pc.struct_field(cells, flag).cast(pa.bool_())
    cold = pc.fill_null(flags, False).to_numpy(zero_copy_only=False)
    texts = pc.struct_field(cells, "feature_value")
    null = pc.is_null(texts).to_numpy(zero_copy_only=False)
    if pt.is_string(texts.type) or pt.is_large_string(texts.type):
        values, wrong = _parse(texts)
    else:
        values, wrong = whole_numbers(texts, null=_NULL), null

    missing = null & ~cold
    unreadable = wrong & ~null & ~cold
    beyond = ~wrong & ~cold & ((values < 0) | (values >= size - FIRST_VALUE))
    counts.missing += int(missing.sum())
    counts.flagged_cold += int(cold.sum())
    counts.not_a_number += int(unreadable.sum())
    counts.beyond_vocabulary += int(beyond.sum())
    codes = np.where(cold | unreadable | beyond, UNKNOWN, values + FIRST_VALUE)
    codes[missing] = MISSING
    return codes.astype(np.int32)


def _parse(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Decimal strings [n] -> (numbers [n] int64, which of them are none [n] bool), without a loop over them."""
    try:
        numbers = texts.cast(pa.int64())
    except pa.ArrowInvalid:  # some are no number: only then is each looked at
        fits = pc.match_substring_regex(texts, _WHOLE)
        numbers = pc.if_else(fits, texts, pa.scalar(None, texts.type)).cast(pa.int64())
    return numbers.fill_null(_NULL).to_numpy(), pc.is_null(numbers).to_numpy(zero_copy_only=False)
