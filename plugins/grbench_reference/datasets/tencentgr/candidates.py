"""Reads `candidate`, the table of the candidates that are ranked, in both of its column namings.

Items have their raw ids (OIDs), and some are not in the indexer. A feature is a struct of a value, as a decimal string,
and a flag for values that never occur in training: such a value is a raw number and not a value id.

Shapes: n rows, C features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from grbench.data.store import Field
from grbench.errors import cut
from grbench.types import FIRST_VALUE, MISSING, UNKNOWN, Progress
from grbench_reference.datasets.parquet_parts import FaultHandler, PartBatch, PartFolder, to_integers
from grbench_reference.datasets.tencentgr.id_lookup import IdLookup
from grbench_reference.datasets.tencentgr.layout import candidate_naming

_BATCH_ROWS = 65_536
_NULL = -(2**63)
_WHOLE = r"^[0-9]{1,18}$"


@dataclass
class CandidateCounts:
    """Counts of the candidates' feature values: missing, and UNKNOWN by reason."""

    missing: int = 0
    flagged_cold: int = 0
    not_a_number: int = 0
    beyond_vocabulary: int = 0


def read_candidate_ids(folder: PartFolder, *, on_fault: FaultHandler, report: Progress) -> np.ndarray:
    """OIDs [rows] int64 in file order, without missing ones, which are reported to `on_fault`."""
    column = candidate_naming(folder).item
    blocks = [
        raw_ids(batch, column, on_fault) for batch in folder.stream([column], batch_rows=_BATCH_ROWS, report=report)
    ]
    ids = np.concatenate(blocks) if blocks else np.empty(0, np.int64)
    valid: np.ndarray = ids[ids != _NULL]
    return valid


def raw_ids(batch: PartBatch, column: str, on_fault: FaultHandler) -> np.ndarray:
    """A column of OIDs, numbers or decimal strings, as [rows] int64; other values become -2^63 and are reported to
    `on_fault`."""
    array = batch.array(column)
    if pt.is_string(array.type) or pt.is_large_string(array.type):
        numbers, wrong = _parse(array)
    else:
        with batch.reading(column):
            numbers = to_integers(array, null=_NULL)
        wrong = numbers == _NULL
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = array[row].as_py()
        on_fault(batch.error(f"{cut(repr(found))} is not a raw item id (a decimal integer)", column=column, row=row))
    return numbers


def candidate_features(
    folder: PartFolder,
    fields: Sequence[Field],
    lookup: IdLookup,
    *,
    counts: CandidateCounts,
    on_fault: FaultHandler,
    report: Progress,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (item rows [n], feature codes [n, C]) for each batch, of the candidates whose OID is in `lookup`."""
    naming = candidate_naming(folder)
    columns = [naming.item, *(field.name for field in fields)]
    for batch in folder.stream(columns, batch_rows=_BATCH_ROWS, report=report):
        codes = np.empty((len(batch), len(fields)), np.int32)
        for column, field in enumerate(fields):
            with batch.reading(field.name):
                codes[:, column] = candidate_codes(batch.array(field.name), naming.flag, field.size, counts)
        rows = lookup.find(raw_ids(batch, naming.item, on_fault))
        yield rows[rows >= 0], codes[rows >= 0]


def candidate_codes(cells: pa.Array, flag: str, size: int, counts: CandidateCounts) -> np.ndarray:
    """Feature structs [n] -> codes [n] int32 below `size`. Null becomes MISSING; flagged, non-numeric and out-of-range
    values become UNKNOWN. A flagged null is UNKNOWN too: the ad has a value, but one that never occurs in training."""
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
        values, wrong = to_integers(texts, null=_NULL), null

    missing = null & ~cold
    not_a_number = wrong & ~null & ~cold
    beyond = ~wrong & ~cold & ((values < 0) | (values >= size - FIRST_VALUE))
    counts.missing += int(missing.sum())
    counts.flagged_cold += int(cold.sum())
    counts.not_a_number += int(not_a_number.sum())
    counts.beyond_vocabulary += int(beyond.sum())
    codes = np.where(cold | not_a_number | beyond, UNKNOWN, values + FIRST_VALUE)
    codes[missing] = MISSING
    return codes.astype(np.int32)


def _parse(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Decimal strings [n] -> (numbers [n] int64, [n] bool: the string is not a number), vectorised."""
    try:
        numbers = texts.cast(pa.int64())
    except pa.ArrowInvalid:  # some strings are not numbers; the slower check of each string is made only then
        fits = pc.match_substring_regex(texts, _WHOLE)
        numbers = pc.if_else(fits, texts, pa.scalar(None, texts.type)).cast(pa.int64())
    return numbers.fill_null(_NULL).to_numpy(), pc.is_null(numbers).to_numpy(zero_copy_only=False)
