"""Item vectors from training events alone, for datasets that have no content embeddings, and for items that lack one.

Shapes: N items, n items asked for, D width.
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
"""Power that contexts' counts are raised to, which keeps rare contexts from dominating (Levy et al. 2015, 3.2)."""


def cooccurrence_vectors(data: TrainingData, *, width: int, window: int, seed: int) -> ArrayVectors:
    """Singular vectors of the items' positive pointwise mutual information within a window of each training history.

    As Levy, Goldberg and Dagan (Improving distributional similarity with lessons learned from word embeddings, 2015):
    pairs at most `window` events apart count once each, contexts are smoothed, vectors are U S^(1/2). Items without a
    training event get none. Memory: about 16 bytes for each distinct pair, so this is for catalogues up to some
    hundred thousand items. Raises SuiteError where fewer than width + 1 items were seen.
    """
    counts = count_pairs(data, window)
    seen = np.flatnonzero(counts.sum(axis=1))
    _check_width(width, len(seen))
    information = _positive_information(counts[seen][:, seen])
    start = np.random.default_rng(seed).standard_normal(len(seen))
    left, strengths, _ = svds(information, k=width, v0=start)
    order = np.argsort(-strengths)
    values = np.zeros((data.catalogue.num_items + 1, width), np.float32)
    values[seen] = left[:, order] * np.sqrt(strengths[order])
    return ArrayVectors(values, f"co-occurrence, {width} wide, window {window}")


def num_cooccurring(data: TrainingData, width: int) -> int:
    """How many items get a co-occurrence vector, whatever the window: those that ever stand next to another one.

    Raises SuiteError where fewer than width + 1 do. One pass over the training events.
    """
    seen = np.zeros(data.catalogue.num_items + 1, bool)
    for left, right in neighbouring_items(data, 1):
        seen[left] = seen[right] = True
    count = int(seen.sum())
    _check_width(width, count)
    return count


def _check_width(width: int, seen: int) -> None:
    if seen <= width:
        raise SuiteError(
            f"tokenizer.width: {width} dimensions, but only {seen} items occur beside another one in training; "
            f"it can be at most {max(seen - 1, 0)}"
        )


def count_pairs(data: TrainingData, window: int) -> sparse.csr_array:
    """[N+1, N+1] float32, symmetric: how often two different items stand at most `window` events apart."""
    size = data.catalogue.num_items + 1
    counts = sparse.csr_array((size, size), dtype=np.float32)
    for left, right in neighbouring_items(data, window):
        ones = np.ones(len(left), np.float32)
        counts = counts + sparse.coo_array((ones, (left, right)), shape=(size, size)).tocsr()
    return sparse.csr_array(counts + counts.T)


def neighbouring_items(data: TrainingData, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every pair of different items at most `window` events apart in a training history, the earlier one first: two
    arrays [pairs] a distance and stretch of events."""
    for events in data.stream():
        rows = np.repeat(np.arange(len(events.users)), np.diff(events.offsets))
        items = np.asarray(events.items, np.int64)
        for distance in range(1, min(window, len(items) - 1) + 1):
            beside = (rows[distance:] == rows[:-distance]) & (items[distance:] != items[:-distance])
            yield items[:-distance][beside], items[distance:][beside]


def neighbour_means(data: TrainingData, vectors: VectorSource) -> tuple[np.ndarray, np.ndarray]:
    """Vectors for items that lack one: the mean of the vectors next to them in training histories.

    Returns (items [F] ascending, values [F, D] float32); items that never stand next to one with a vector are left out.
    """
    lacking = np.flatnonzero(~vectors.present[1:]) + 1
    position = np.full(data.catalogue.num_items + 1, -1, np.int64)
    position[lacking] = np.arange(len(lacking))
    sums, counts = np.zeros((len(lacking), vectors.width), np.float32), np.zeros(len(lacking), np.int64)
    for left, right in neighbouring_items(data, 1):
        wanting, giving = np.concatenate([left, right]), np.concatenate([right, left])
        useful = (position[wanting] >= 0) & vectors.present[giving]
        to, items = position[wanting[useful]], giving[useful]
        counts += np.bincount(to, minlength=len(counts))
        givers, column = np.unique(items, return_inverse=True)
        for block in in_blocks(len(givers), vectors.width):
            inside = (column >= block.start) & (column < block.stop)
            weights = sparse.coo_array(
                (np.ones(int(inside.sum()), np.float32), (to[inside], column[inside] - block.start)),
                shape=(len(lacking), block.stop - block.start),
            ).tocsr()
            weights.sum_duplicates()
            touched = np.flatnonzero(np.diff(weights.indptr))
            sums[touched] += weights[touched] @ vectors.rows(givers[block])
    found = counts > 0
    return lacking[found], sums[found] / counts[found, None]


def _positive_information(counts: sparse.csr_array) -> sparse.csr_array:
    """max(0, log of how much oftener than by chance): [n, n] counts -> [n, n], as sparse as the counts."""
    totals = np.asarray(counts.sum(axis=1), np.float64)
    contexts = totals**CONTEXT_SMOOTHING
    pairs = counts.tocoo()
    expected = totals[pairs.row] * (contexts[pairs.col] / contexts.sum())
    pairs.data = np.maximum(np.log(pairs.data / expected), 0).astype(np.float32)
    information: sparse.csr_array = sparse.csr_array(pairs)
    information.eliminate_zeros()
    return information
