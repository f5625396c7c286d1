"""Item vectors from co-occurrence in training histories, for datasets or items without content embeddings.

Shapes: N items, n items with a vector, D width, F items without.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench_reference.codes.item_vectors import ArrayVectors, VectorSource, in_blocks

CONTEXT_SMOOTHING = 0.75
"""Exponent of the context counts, which keeps rare contexts from dominating (Levy et al. 2015, section 3.2)."""


def cooccurrence_vectors(data: TrainingData, *, width: int, window: int, seed: int) -> ArrayVectors:
    """Item vectors by truncated SVD of the positive pointwise mutual information (PPMI) of items in training histories.

    As in Levy, Goldberg and Dagan (Improving distributional similarity with lessons learned from word embeddings,
    2015): each pair at most `window` events apart counts once, context counts are smoothed, and vectors are U S^(1/2).
    Items that never co-occur with another one get no vector. Memory: about 16 bytes for each distinct pair, which
    suits catalogues of up to some hundred thousand items. Raises SuiteError where fewer than width + 1 items co-occur.
    """
    counts = count_pairs(data, window)
    seen = np.flatnonzero(counts.sum(axis=1))
    _check_width(width, len(seen))
    information = _ppmi(counts[seen][:, seen])
    start = np.random.default_rng(seed).standard_normal(len(seen))
    left, strengths, _ = svds(information, k=width, v0=start)
    order = np.argsort(-strengths)
    values = np.zeros((data.catalogue.num_items + 1, width), np.float32)
    values[seen] = left[:, order] * np.sqrt(strengths[order])
    return ArrayVectors(values, f"co-occurrence, {width} wide, window {window}")


def num_cooccurring(data: TrainingData, width: int) -> int:
    """How many items get a co-occurrence vector: those with a neighbour in a training history, whatever the window.

    Raises SuiteError where there are fewer than width + 1. One pass over the training events.
    """
    seen = np.zeros(data.catalogue.num_items + 1, bool)
    for left, right in neighbouring_items(data, 1):
        seen[left] = seen[right] = True
    count = int(seen.sum())
    _check_width(width, count)
    return count


def _check_width(width: int, num_items: int) -> None:
    if num_items <= width:
        raise SuiteError(
            f"tokenizer.width: {width} dimensions, but only {num_items} items occur next to another one in "
            f"training; it can be at most {max(num_items - 1, 0)}"
        )


def count_pairs(data: TrainingData, window: int) -> sparse.csr_array:
    """[N+1, N+1] float32, symmetric: how often two different items occur at most `window` events apart."""
    size = data.catalogue.num_items + 1
    counts = sparse.csr_array((size, size), dtype=np.float32)
    for left, right in neighbouring_items(data, window):
        ones = np.ones(len(left), np.float32)
        counts = counts + sparse.coo_array((ones, (left, right)), shape=(size, size)).tocsr()
    return sparse.csr_array(counts + counts.T)


def neighbouring_items(data: TrainingData, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of different items at most `window` events apart in a training history, as two arrays [pairs], the
    earlier items first, for each block of events and each distance."""
    for events in data.stream():
        rows = np.repeat(np.arange(len(events.users)), np.diff(events.offsets))
        items = np.asarray(events.items, np.int64)
        for distance in range(1, min(window, len(items) - 1) + 1):
            is_pair = (rows[distance:] == rows[:-distance]) & (items[distance:] != items[:-distance])
            yield items[:-distance][is_pair], items[distance:][is_pair]


def neighbour_means(data: TrainingData, vectors: VectorSource) -> tuple[np.ndarray, np.ndarray]:
    """Vectors for items without one: the mean of the vectors of their neighbours in training histories.

    Returns (items [F] ascending, values [F, D] float32), without the items that have no neighbour with a vector.
    """
    lacking = np.flatnonzero(~vectors.present[1:]) + 1
    position = np.full(data.catalogue.num_items + 1, -1, np.int64)
    position[lacking] = np.arange(len(lacking))
    sums, counts = np.zeros((len(lacking), vectors.width), np.float32), np.zeros(len(lacking), np.int64)
    for left, right in neighbouring_items(data, 1):
        items, neighbours = np.concatenate([left, right]), np.concatenate([right, left])
        useful = (position[items] >= 0) & vectors.present[neighbours]
        to, neighbours = position[items[useful]], neighbours[useful]
        counts += np.bincount(to, minlength=len(counts))
        distinct, column = np.unique(neighbours, return_inverse=True)
        for block in in_blocks(len(distinct), vectors.width):
            inside = (column >= block.start) & (column < block.stop)
            weights = sparse.coo_array(
                (np.ones(int(inside.sum()), np.float32), (to[inside], column[inside] - block.start)),
                shape=(len(lacking), block.stop - block.start),
            ).tocsr()
            weights.sum_duplicates()
            rows = np.flatnonzero(np.diff(weights.indptr))
            sums[rows] += weights[rows] @ vectors.rows(distinct[block])
    found = counts > 0
    return lacking[found], sums[found] / counts[found, None]


def _ppmi(counts: sparse.csr_array) -> sparse.csr_array:
    """counts [n, n] -> [n, n] max(0, log(observed / expected count)), with the same sparsity."""
    totals = np.asarray(counts.sum(axis=1), np.float64)
    contexts = totals**CONTEXT_SMOOTHING
    pairs = counts.tocoo()
    expected = totals[pairs.row] * (contexts[pairs.col] / contexts.sum())
    pairs.data = np.maximum(np.log(pairs.data / expected), 0).astype(np.float32)
    information: sparse.csr_array = sparse.csr_array(pairs)
    information.eliminate_zeros()
    return information
