"""Filters of ranked lists: which candidates a method leaves out, and which targets it can then not find.

Shapes: P candidates, Q queries, B queries of a batch, H longest history of a batch, S list length, N items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grbench.data.split import Queries, Split
from grbench.errors import DataError, SuiteError
from grbench.types import FILTERS


def filtered_candidates(split: Split, k: int, filters: Sequence[str]) -> np.ndarray:
    """[P] int64: the candidates after filtering. Needs no model, and is also called before training for its checks.

    Raises SuiteError where there are fewer than k or a filter is unknown, DataError where there are none.
    """
    unknown = [name for name in filters if name not in FILTERS]
    if unknown:
        raise SuiteError(f"filters: unknown filter {unknown[0]!r}; there are {', '.join(FILTERS)}")
    if k < 1:
        raise SuiteError(f"metrics: k={k}; k must be at least 1")
    pool = np.asarray(split.candidates, np.int64)
    for name in filters:
        if name != "history":
            pool = pool[_keeps(split, name)[pool]]
    if not len(pool):
        raise DataError(f"there are no candidates to rank (filters: {', '.join(filters) or 'none'})")
    if k > len(pool):
        raise SuiteError(
            f"metrics: k={k} is larger than the pool of {len(pool)} candidates "
            f"(filters: {', '.join(filters) or 'none'}); use a smaller k"
        )
    return pool


def unreachable_targets(split: Split, queries: Queries, filters: Sequence[str]) -> dict[str, int]:
    """How many targets each of the filters leaves out of their lists, and under `any` all filters together; {} without
    filters. A target can be left out by several."""
    present = queries.targets > 0
    missed = {name: present & _left_out(split, queries, name) for name in filters}
    if not missed:
        return {}
    together = np.logical_or.reduce([*missed.values()])
    return {**{name: int(each.sum()) for name, each in missed.items()}, "any": int(together.sum())}


class HistoryFilter:
    """Removes the items of a query's history from its list: of the whole history, also of events that the encoder does
    not read."""

    def __init__(self, queries: Queries, in_pool: np.ndarray) -> None:
        """in_pool: [N+1] bool, whether an item is a candidate."""
        self._histories, self._in_pool = queries.histories, in_pool

    def max_removed(self, rows: slice) -> int:
        """The largest number of candidates that the filter can remove from one list of the batch."""
        history = self._history_items(rows)
        first = np.diff(history, axis=1, prepend=-1) > 0
        return int((first & self._in_pool[history]).sum(axis=1).max(initial=0))

    def remove(self, rows: slice, items: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """items, scores [B, S] -> the same shapes without items of the history: later items move up, and the end is
        filled with item 0 and score -inf."""
        removed = _isin_rows(items, self._history_items(rows), len(self._in_pool)) | (items == 0)
        order = np.argsort(removed, axis=1, kind="stable")
        remains = ~np.take_along_axis(removed, order, axis=1)
        moved = np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
        return np.where(remains, moved[0], 0), np.where(remains, moved[1], np.float32(-np.inf))

    def _history_items(self, rows: slice) -> np.ndarray:
        """[B, H], ascending."""
        return np.sort(self._histories.items_of(np.arange(rows.start, rows.stop)), axis=1)


def _keeps(split: Split, name: str) -> np.ndarray:
    """[N+1] bool, whether the filter leaves an item in the pool."""
    catalogue = split.training.catalogue
    if name == "not_indexed":
        return np.arange(catalogue.num_items + 1) <= catalogue.num_indexed
    assert name == "no_training_event"
    return split.training.item_counts() > 0


def _left_out(split: Split, queries: Queries, name: str) -> np.ndarray:
    """[Q, G] bool, whether the filter leaves a target out of its query's list."""
    if name == "history":
        return queries.histories.contain(queries.targets)
    left_out: np.ndarray = ~_keeps(split, name)[queries.targets]
    return left_out


def _isin_rows(values: np.ndarray, others: np.ndarray, size: int) -> np.ndarray:
    """values [B, n], others [B, m], both below `size` -> [B, n] bool, whether a value is among its row's others."""
    offsets = np.arange(len(values))[:, None] * size  # makes pairs of row and value distinct numbers
    return np.isin(values + offsets, others + offsets)
