"""Sources of item vectors, read in blocks, because the vectors of 17 million items do not fit in memory.

Shapes: N items, n some items, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from grbench.data.store import Catalogue, Embedding
from grbench.errors import DataError, SuiteError

BLOCK_BYTES = 1 << 26
"""Bytes of float32 vectors that are read at once."""
SVD_SAMPLE = 1 << 18
"""The largest number of items that the singular vectors are computed from."""

EmbeddingNames = Literal["all"] | list[str | int]


class VectorSource(Protocol):
    """Vectors of items. name: for reports; present: [N+1] bool, the items that have a vector; width: D."""

    name: str
    present: np.ndarray
    width: int

    def rows(self, items: np.ndarray) -> np.ndarray:
        """items [n], all with a vector -> [n, D] float32, a new array."""


def chosen_embeddings(catalogue: Catalogue, names: EmbeddingNames, where: str, hint: str) -> list[Embedding]:
    """The content embeddings of these names. Raises SuiteError, naming `where`, for one that the dataset does not have,
    and where there is none."""
    chosen = list(catalogue.embeddings) if names == "all" else [str(name) for name in names]
    absent = [name for name in chosen if name not in catalogue.embeddings]
    if absent or not chosen:
        raise SuiteError(
            f"{where}: no embedding {', '.join(map(repr, absent)) or 'at all'} in this dataset; it has "
            f"{', '.join(catalogue.embeddings) or 'none'} ({hint})"
        )
    return [catalogue.embeddings[name] for name in chosen]


class EmbeddingVectors:
    """Content embeddings, concatenated, each scaled to length 1 so that none dominates by its scale.

    An item has a vector where it has at least one of the embeddings; those it lacks are zeros. Raises SuiteError for an
    embedding that the dataset does not have.
    """

    def __init__(self, catalogue: Catalogue, names: EmbeddingNames = "all") -> None:
        hint = "the dataset's own options choose what is read; source: cooccurrence needs none"
        self._parts = chosen_embeddings(catalogue, names, "tokenizer.embeddings", hint)
        chosen = list(catalogue.embeddings) if names == "all" else [str(name) for name in names]
        self.name = f"embeddings {', '.join(chosen)}"
        self.present = np.logical_or.reduce([part.present for part in self._parts])
        self.width = sum(part.values.shape[1] for part in self._parts)

    def rows(self, items: np.ndarray) -> np.ndarray:
        """items [n] -> [n, D] float32."""
        return np.concatenate([unit(part.values[items].astype(np.float32)) for part in self._parts], axis=1)


class ArrayVectors:
    """Vectors in an array [N+1, D], scaled to length 1; a row of zeros means that the item has no vector."""

    def __init__(self, values: np.ndarray, name: str) -> None:
        self.name, self._values, self.width = name, values, values.shape[1]
        self.present = np.concatenate([block.any(axis=1) for block in _blocks_of(values)])
        self.present[0] = False

    def rows(self, items: np.ndarray) -> np.ndarray:
        """items [n] -> [n, D] float32."""
        return unit(self._values[items].astype(np.float32))


class ProjectedVectors:
    """Vectors of another source, projected to fewer dimensions. basis: [width of the source, D]."""

    def __init__(self, source: VectorSource, basis: np.ndarray) -> None:
        self.name = f"{source.name}, SVD {basis.shape[1]}"
        self.present, self.width = source.present, basis.shape[1]
        self._source, self._basis = source, basis

    def rows(self, items: np.ndarray) -> np.ndarray:
        """items [n] -> [n, D] float32."""
        projected: np.ndarray = self._source.rows(items) @ self._basis
        return projected


class ImputedVectors:
    """Vectors of another source, and imputed ones for items without. items: [F] ascending; values: [F, D]."""

    def __init__(self, source: VectorSource, items: np.ndarray, values: np.ndarray) -> None:
        self.name, self.width = source.name, source.width
        self.present = source.present.copy()
        self.present[items] = True
        self._source, self._items, self._values = source, items, values

    def rows(self, items: np.ndarray) -> np.ndarray:
        """items [n] -> [n, D] float32."""
        own = self._source.present[items]
        vectors = np.empty((len(items), self.width), np.float32)
        vectors[own] = self._source.rows(items[own])
        vectors[~own] = self._values[np.searchsorted(self._items, items[~own])]
        return vectors


def in_blocks(count: int, width: int) -> Iterator[slice]:
    """Slices of 0..count such that `width` float32 values per row take at most BLOCK_BYTES."""
    step = max(1, BLOCK_BYTES // (4 * width))
    return (slice(first, min(first + step, count)) for first in range(0, count, step))


def read_vectors_file(path: str | Path, num_items: int) -> ArrayVectors:
    """An `.npy` file [N+1, D] in the order of the store's items, row 0 padding, a row of zeros = no vector.

    Raises DataError where it is missing, or of another shape.
    """
    try:
        values = np.load(Path(path), mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"tokenizer.vectors: {path}: is not a readable .npy file ({error})") from error
    if values.ndim != 2 or len(values) != num_items + 1 or values.dtype.kind != "f":
        raise DataError(
            f"tokenizer.vectors: {path}: holds {values.dtype} {list(values.shape)}; it should hold floats "
            f"[{num_items + 1}, width]: row 0 is padding, then one row for each item of the store"
        )
    return ArrayVectors(values, f"file {Path(path).name}")


def total_variance(vectors: VectorSource, catalogue: Catalogue) -> float:
    """The sum of the vectors' squared distances from their mean, in one pass.

    Raises DataError where a vector holds a NaN or an infinite value.
    """
    items = np.flatnonzero(vectors.present)
    total, squares = np.zeros(vectors.width), 0.0
    for block in in_blocks(len(items), vectors.width):
        rows = vectors.rows(items[block])
        wrong = ~np.isfinite(rows).all(axis=1)
        if wrong.any():
            first = catalogue.item_ids[items[block][wrong][0]]
            raise DataError(
                f"{vectors.name}: {int(wrong.sum())} of the first {block.stop} vectors hold NaN or infinite values, "
                f"the first is that of item {first}; correct them, or set them to null, which means no vector"
            )
        total += rows.sum(axis=0, dtype=np.float64)
        squares += float(np.einsum("nd,nd->", rows, rows, dtype=np.float64))
    return squares - float(total @ total) / max(len(items), 1)


def check_svd_width(vectors: VectorSource, width: int | None) -> None:
    """Raises SuiteError where the vectors have fewer than `width` dimensions; None = no SVD."""
    if width is not None and width > vectors.width:
        raise SuiteError(f"tokenizer.svd: {width} is more than the {vectors.width} dimensions of {vectors.name}")


def project_svd(vectors: VectorSource, width: int, seed: int) -> ProjectedVectors:
    """Projects the vectors onto the first `width` right singular vectors (not centred) of at most SVD_SAMPLE of them.

    Raises SuiteError where the vectors have fewer dimensions.
    """
    check_svd_width(vectors, width)
    items = sample_items(vectors.present, SVD_SAMPLE, seed)
    gram = np.zeros((vectors.width, vectors.width))
    for block in in_blocks(len(items), vectors.width):
        rows = vectors.rows(items[block])
        gram += rows.T @ rows
    basis = np.linalg.eigh(gram)[1][:, ::-1][:, :width]
    # Singular vectors have arbitrary signs, fixed here so that every machine gets the same vectors.
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(width)])
    return ProjectedVectors(vectors, np.ascontiguousarray(basis, dtype=np.float32))


def sample_items(present: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """[n] items with a vector, ascending; a random sample of `limit` of them where there are more (None = all)."""
    items = np.flatnonzero(present)
    if limit is None or len(items) <= limit:
        return items
    return np.sort(np.random.default_rng(seed).choice(items, limit, replace=False))


def read_vectors(vectors: VectorSource, items: np.ndarray) -> np.ndarray:
    """items [n] -> [n, D] float32, read block by block, so that wider vectors of a projected source are never in memory
    at once."""
    rows = np.empty((len(items), vectors.width), np.float32)
    for block in in_blocks(len(items), vectors.width):
        rows[block] = vectors.rows(items[block])
    return rows


def normalise(rows: np.ndarray) -> np.ndarray:
    """Scales rows [n, D] to length 1 in place, except rows of zeros; returns their former lengths [n, 1]."""
    lengths: np.ndarray = np.linalg.norm(rows, axis=1, keepdims=True)
    np.divide(rows, lengths, out=rows, where=lengths > 0)
    return lengths


def unit(rows: np.ndarray) -> np.ndarray:
    """rows [n, D], scaled to length 1 in place."""
    normalise(rows)
    return rows


def _blocks_of(values: np.ndarray) -> Sequence[np.ndarray]:
    return [values[block] for block in in_blocks(len(values), values.shape[1])]
