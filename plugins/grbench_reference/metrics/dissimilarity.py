"""How unlike two items are: by their features, by a content embedding, or by the training users that they share.

Shapes: n pairs of items, N items, C feature columns, w values of a feature, d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from grbench.data.store import Catalogue
from grbench.data.store import Field as Feature
from grbench.data.training_data import TrainingData
from grbench.errors import DataError
from grbench.types import FIRST_VALUE

Dissimilarity = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(items [n], other items [n]) -> (dissimilarity [n] float64, [n] bool, whether both items are known)."""

EVENTS_AT_ONCE = 1 << 22
"""Entries of the matrix of items and users that are compared at once."""


class FeatureDistance:
    """1 - the Jaccard index of two items' feature values. Missing values, and values that training data do not have,
    are no values; an item without any is not known."""

    def __init__(self, catalogue: Catalogue, names: Sequence[str] | None, metric: str) -> None:
        fields = {field.name: field for field in catalogue.item_features.fields}
        if not fields:
            raise DataError(
                f"{metric}: this dataset's items have no features; compare them by: cooccurrence"
                + (", or by: embedding" if catalogue.embeddings else "")
            )
        if unknown := [name for name in names or () if name not in fields]:
            raise DataError(f"{metric}: items have no feature {unknown[0]!r}; they have {', '.join(fields)}")
        self._fields = [field for name, field in fields.items() if names is None or name in names]
        self._values = catalogue.item_features.values

    def __call__(self, items: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both, one, other = (np.zeros(len(items)) for _ in range(3))
        for field in self._fields:
            mine, its = self._values_of(items, field), self._values_of(others, field)
            equal = (mine[:, :, None] == its[:, None, :]) & (mine[:, :, None] > 0)
            both += equal.any(axis=2).sum(axis=1)
            one += (mine > 0).sum(axis=1)
            other += (its > 0).sum(axis=1)
        known = (one > 0) & (other > 0)
        either = np.where(known, one + other - both, 1.0)
        return 1.0 - both / either, known

    def _values_of(self, items: np.ndarray, field: Feature) -> np.ndarray:
        """[n, w]: the feature's values, each once; 0 = none."""
        codes = np.asarray(self._values[items, field.start : field.start + field.width])
        codes = np.where(codes >= FIRST_VALUE, codes, 0)
        for place in range(1, field.width):
            codes[(codes[:, :place] == codes[:, place : place + 1]).any(axis=1), place] = 0
        return codes


class EmbeddingDistance:
    """1 - the cosine of two items' content embeddings; an item whose vector is missing or zero is not known."""

    def __init__(self, catalogue: Catalogue, name: str | None, metric: str) -> None:
        there = catalogue.embeddings
        if not there:
            raise DataError(
                f"{metric}: this dataset's store has no embeddings (see the dataset's option); compare items "
                + ("by: features" if catalogue.item_features.fields else "by: cooccurrence")
            )
        if name is None and len(there) > 1:
            raise DataError(f"{metric}: embedding: there are several: {', '.join(there)}; choose one")
        if name is not None and name not in there:
            raise DataError(f"{metric}: embedding: there is no {name!r}; there are {', '.join(there)}")
        self._embedding = there[next(iter(there)) if name is None else name]

    def __call__(self, items: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mine, its = (np.asarray(self._embedding.values[rows], np.float32) for rows in (items, others))
        norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(its, axis=1)
        known = self._embedding.present[items] & self._embedding.present[others] & (norms > 0)
        cosine = np.einsum("nd,nd->n", mine, its) / np.where(known, norms, 1.0)
        return 1.0 - np.clip(cosine, -1.0, 1.0).astype(np.float64), known


class CoOccurrence:
    """1 - the number of training users who have an event with both items, divided by the geometric mean of the numbers
    that have one with each; an item without a training event is not known."""

    def __init__(self, training: TrainingData) -> None:
        self._users = _users_of_items(training)
        self._counts = np.diff(self._users.indptr)

    def __call__(self, items: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = len(self._counts)
        low, high = np.minimum(items, others), np.maximum(items, others)
        pairs, place = np.unique(low * size + high, return_inverse=True)  # lists share many pairs
        return tuple(each[place.ravel()] for each in self._compare(pairs // size, pairs % size))  # type: ignore[return-value]

    def _compare(self, items: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one, other = self._counts[items], self._counts[others]
        both = np.zeros(len(items))
        done = np.concatenate([[0], np.cumsum(one + other, dtype=np.int64)])
        first = 0
        while first < len(items):
            last = max(first + 1, int(np.searchsorted(done, done[first] + EVENTS_AT_ONCE, side="right")) - 1)
            shared = self._users[items[first:last]].multiply(self._users[others[first:last]])
            both[first:last] = np.asarray(shared.sum(axis=1)).ravel()
            first = last
        known = (one > 0) & (other > 0)
        return 1.0 - both / np.sqrt(np.where(known, one.astype(np.float64) * other, 1.0)), known


def _users_of_items(training: TrainingData) -> Any:
    """[N+1, training users] scipy CSR matrix: 1 where the user has an event with the item."""
    from scipy import sparse

    size, done, rows, columns = training.catalogue.num_items + 1, 0, [], []
    for events in training.stream():
        users = np.repeat(np.arange(len(events.users)), np.diff(events.offsets))
        pairs = np.unique(users * size + events.items)
        rows.append((pairs % size).astype(np.int32))
        columns.append((pairs // size + done).astype(np.int32))
        done += len(events.users)
    where = np.concatenate([np.zeros(0, np.int32), *rows]), np.concatenate([np.zeros(0, np.int32), *columns])
    return sparse.coo_array((np.ones(len(where[0]), np.float32), where), shape=(size, done)).tocsr()
