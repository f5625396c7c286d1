"""Reads one folder of `mm_emb`, content embeddings by raw item id, into a memory-mapped table.

Shapes: n rows of one batch, N items, d width of the vectors, which is read from the data: embedding 84 has d = 4096 in
TencentGR-1M and d = 32 in TencentGR-10M.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from grbench.errors import DataError
from grbench.types import Progress
from grbench_reference.datasets.parquet_parts import FaultHandler, PartFolder
from grbench_reference.datasets.tencentgr.candidates import raw_ids
from grbench_reference.datasets.tencentgr.features import release_pages
from grbench_reference.datasets.tencentgr.id_lookup import IdLookup

_BATCH_BYTES = 16 << 20  # of one batch's vectors, as arrow holds them
_RELEASED_BYTES = 64 << 20  # written between two calls of release_pages


@dataclass
class EmbeddingCounts:
    """Counts of rows, null vectors, unknown and repeated items."""

    rows: int = 0
    null: int = 0
    unknown_item: int = 0
    repeated: int = 0


def embedding_width(folder: PartFolder) -> int:
    """d, the length of the first vector; raises DataError where there is no vector."""
    for batch in folder.stream(["emb"], batch_rows=256, report=lambda *_: None):
        lengths = batch.array("emb").drop_null()
        if len(lengths) and (width := int(pc.list_value_length(lengths[:1])[0].as_py())):
            return width
        if len(lengths):
            raise DataError(f"{batch.path}, column emb: the first vector has no values")
    raise DataError(f"{folder.parts[0].path.parent}: no row has a vector (column emb)")


def read_embedding(
    folder: PartFolder, width: int, *, on_fault: FaultHandler, counts: EmbeddingCounts, report: Progress
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (OIDs [n] int64, vectors [n, d] float16) for each batch; vectors of another width are reported to
    `on_fault`."""
    batch_rows = max(256, min(65_536, _BATCH_BYTES // (4 * width)))
    for batch in folder.stream(["anonymous_cid", "emb"], batch_rows=batch_rows, report=report):
        ids = raw_ids(batch, "anonymous_cid", on_fault)
        lists = batch.array("emb")
        lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy()
        fits = lengths == width
        wrong = ~fits & (lengths >= 0)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            fault = f"{int(wrong.sum())} vector(s) from here on have another width than {width}, such as {lengths[row]}"
            on_fault(batch.error(fault, column="emb", row=row))
            lists = lists.filter(pc.equal(pc.list_value_length(lists), width))
        with np.errstate(over="ignore"):  # values beyond float16 become infinite; the store counts them as missing
            vectors = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float16).reshape(-1, width)
        counts.rows += len(batch)
        counts.null += int((lengths < 0).sum())
        yield ids[fits], vectors


def fill_embedding(
    folder: PartFolder,
    lookup: IdLookup,
    values: np.ndarray,
    present: np.ndarray,
    *,
    on_fault: FaultHandler,
    report: Progress,
) -> EmbeddingCounts:
    """Writes each vector to its item's row of `values` [N+1, d], and sets `present` [N+1] for these rows."""
    counts = EmbeddingCounts()
    written = since_release = 0
    for ids, vectors in read_embedding(folder, values.shape[1], on_fault=on_fault, counts=counts, report=report):
        found = lookup.find(ids)
        known = found >= 0
        rows = found[known]
        values[rows] = vectors if known.all() else vectors[known]
        present[rows] = True
        counts.unknown_item += len(found) - len(rows)
        written += len(rows)
        since_release += vectors.nbytes
        if since_release > _RELEASED_BYTES:
            release_pages(values)
            since_release = 0
    release_pages(values)
    counts.repeated = written - int(present.sum())
    return counts
