"""Ranking the candidates for every query. The only place where lists meet their targets.

Shapes: Q queries, B queries of a batch, G targets a query, K list length kept, S list length searched, H longest
visible history, P candidates, N items.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from grbench.cost.meter import Meter, Phase, synchronize
from grbench.data.batches import query_batches
from grbench.data.split import Queries, Split
from grbench.errors import DataError, RunError, SuiteError
from grbench.evaluation.codes import current_codes
from grbench.interfaces import Retriever
from grbench.types import Batch, Codes, Ranking, Report

FILTERS = ("history", "cold")
"""history: no item of a query's visible history is shown. cold: no item without a training event is a candidate."""

WARM_UP_BATCHES = 1


def rank(
    retriever: Retriever,
    encoder: Any,
    queries: Queries,
    split: Split,
    codes: Codes,
    *,
    k: int,
    filters: Sequence[str] = (),
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    meter: Meter | None = None,
    report: Report | None = None,
) -> Ranking:
    """Indexes the candidates and ranks them for every query: `Ranker` in one call, and it says what is raised."""
    ranker = Ranker(
        retriever,
        encoder,
        split,
        codes,
        k=k,
        filters=filters,
        batch_size=batch_size,
        device=device,
        meter=meter,
        report=report,
    )
    return ranker.rank(queries)


class Ranker:
    """A retriever with the candidates indexed, which ranks them in float32 and with the encoder in eval mode.

    Phases `index`, `search` and `keep` go to the meter; `report("search", done=, total=, queries_per_second=)` is
    called after each batch. Memory is that of the result and of one batch. `codes` are those that were indexed: the
    encoder's own where it learns them, else the tokenizer's.

    Raises SuiteError where k is larger than the pool (before anything is encoded) or a filter is unknown, DataError
    where the pool is empty, RunError where the encoder's codes are none of the items.
    """

    def __init__(
        self,
        retriever: Retriever,
        encoder: Any,
        split: Split,
        codes: Codes,
        *,
        k: int,
        filters: Sequence[str] = (),
        batch_size: int = 512,
        device: torch.device | str = "cpu",
        meter: Meter | None = None,
        report: Report | None = None,
    ) -> None:
        self.k, self.codes = k, codes
        self._retriever, self._encoder, self._split, self._filters = retriever, encoder, split, filters
        self._batch_size, self._device, self._meter, self._report = batch_size, device, meter, report
        self._pool = shown_candidates(split, k, filters)
        # no_grad and not inference_mode: a cache that an encoder fills here must stay usable when training goes on.
        with _evaluating(encoder), torch.no_grad(), _phase(meter, "index"):
            _tell(report, "index", candidates=len(self._pool))
            self.codes = current_codes(encoder, codes, _num_items(split))
            retriever.index(encoder, torch.from_numpy(self._pool).to(device), self.codes)
            synchronize(device)

    def rank(self, queries: Queries) -> Ranking:
        """Lists of k, searched for and timed: what is scored. Raises RunError where the retriever returns what is no
        ranking of the pool."""
        return self._search(queries, self.k, "search")

    def keep(self, queries: Queries, length: int) -> Ranking:
        """Lists of `length`, or of the whole pool where that is smaller, by a search of its own: what may be scored
        later. Its time is the phase `keep`, and no part of the cost of searching. Raises as `rank` does."""
        return self._search(queries, min(length, len(self._pool)), "keep")

    def _search(self, queries: Queries, k: int, name: str) -> Ranking:
        """One more item than k is searched for, and with the history filter as many more as the batch's histories can
        take away, so that each list is full and a tie across its end is seen."""
        encoder, split, pool = self._encoder, self._split, self._pool
        history = _HistoryFilter(queries, split, pool) if "history" in self._filters else None
        lists = _Lists.empty(len(queries), k, queries.targets.shape[1])
        in_pool = np.zeros(_num_items(split) + 1, bool)
        in_pool[pool] = True
        watch = _Watch(len(queries), self._batch_size, self._report)
        batches = query_batches(queries, history_length=encoder.history_length, batch_size=self._batch_size)
        with _evaluating(encoder), torch.no_grad(), _phase(self._meter, name) as phase:
            for where, batch in batches:
                length = min(k + 1 + (history.most_taken(where) if history else 0), len(pool))
                items, scores = watch.search(self._retriever, encoder, batch, length, self._device)
                _check(items, scores, in_pool, queries.users[where])
                if history:
                    items, scores = history.without(where, items, scores)
                lists.fill(where, items, scores, queries.targets[where])
            phase.note(**watch.figures())
        return Ranking(
            users=queries.users,
            items=lists.items,
            scores=lists.scores,
            targets=queries.targets,
            target_actions=queries.target_actions,
            ranks=lists.ranks,
            actions=split.training.catalogue.actions,
            pool=len(split.candidates),
            history_lengths=queries.histories.lengths,
            training=split.training,
        )


def shown_candidates(split: Split, k: int, filters: Sequence[str]) -> np.ndarray:
    """[P] int64: the candidates that the filters leave. Called before training too, for the checks need no model.

    Raises SuiteError where lists of k are longer than that or a filter is unknown, DataError where none is left.
    """
    unknown = [name for name in filters if name not in FILTERS]
    if unknown:
        raise SuiteError(f"filters: no filter {unknown[0]!r}; there are {' and '.join(FILTERS)}")
    if k < 1:
        raise SuiteError(f"metrics: k={k}; at least one item must be ranked")
    pool = np.asarray(split.candidates, np.int64)
    if "cold" in filters:
        pool = pool[split.training.item_counts()[pool] > 0]
    left = " left by the filter cold" if "cold" in filters else ""
    if not len(pool):
        raise DataError(f"there is no candidate{left} to rank")
    if k > len(pool):
        raise SuiteError(f"metrics: k={k} is larger than the pool of {len(pool)} candidates{left}; use a smaller k")
    return pool


def target_ranks(items: np.ndarray, scores: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """[Q, G] int64: where each target stands among the first k; 0 = not there, and for padding.

    items, scores: [Q, S], best first, S > k where there are more than k candidates. Ties count against the target:
    its rank is that of the last item of its score, and when the tie reaches beyond k it is not in the list.
    """
    here = (items[:, None, :] == targets[:, :, None]) & (targets[:, :, None] > 0)
    place = here.argmax(axis=2)
    own = np.take_along_axis(scores, place, axis=1)
    # Lists are sorted, so the last of a tie stands where the number of scores at least as good says.
    ranks = (scores[:, None, :] >= own[:, :, None]).sum(axis=2)
    return np.where(here.any(axis=2) & (ranks <= k), ranks, 0).astype(np.int64)


def _num_items(split: Split) -> int:
    return split.training.catalogue.num_items


def _check(items: np.ndarray, scores: np.ndarray, in_pool: np.ndarray, users: np.ndarray) -> None:
    """A retriever may come from anywhere: what it returns must be a ranking of the pool."""

    def refuse(wrong: Any, what: str) -> None:
        if wrong.any():
            raise RunError(f"the retriever's list for user row {int(users[np.flatnonzero(wrong)[0]])} {what}")

    empty = items == 0
    refuse(np.isnan(scores).any(axis=1), "has NaN scores")
    refuse((scores[:, 1:] > scores[:, :-1]).any(axis=1), "is not sorted, best first")
    refuse((empty != np.isneginf(scores)).any(axis=1), "must have score -inf where, and only where, it has no item")
    outside = (items < 0) | (items >= len(in_pool))
    refuse((outside | ~(in_pool[np.where(outside, 0, items)] | empty)).any(axis=1), "holds an item not in the pool")
    ordered = np.sort(items, axis=1)
    refuse(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)).any(axis=1), "holds an item twice")


@dataclass
class _Lists:
    """The result, filled batch by batch."""

    items: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray

    @classmethod
    def empty(cls, queries: int, k: int, targets: int) -> _Lists:
        return cls(
            np.zeros((queries, k), np.int64),
            np.full((queries, k), -np.inf, np.float32),
            np.zeros((queries, targets), np.int64),
        )

    def fill(self, where: slice, items: np.ndarray, scores: np.ndarray, targets: np.ndarray) -> None:
        k = self.items.shape[1]
        held = min(k, items.shape[1])
        self.items[where, :held], self.scores[where, :held] = items[:, :held], scores[:, :held]
        self.ranks[where] = target_ranks(items, scores, targets, k)


class _HistoryFilter:
    """Takes out of each list what its query's user has seen: the whole visible history, not only what is encoded."""

    def __init__(self, queries: Queries, split: Split, pool: np.ndarray) -> None:
        self._histories, self._width = queries.histories, _num_items(split) + 1
        self._in_pool = np.zeros(self._width, bool)
        self._in_pool[pool] = True

    def most_taken(self, where: slice) -> int:
        """How many candidates the filter takes from the list of this batch that loses most."""
        seen = self._seen(where)
        first = np.diff(seen, axis=1, prepend=-1) > 0
        return int((first & self._in_pool[seen]).sum(axis=1).max(initial=0))

    def without(self, where: slice, items: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lists [B, S] without seen items, moved up, the gap at the end empty."""
        rows = np.arange(len(items))[:, None] * self._width  # one number for each pair of row and item
        taken = np.isin(items + rows, self._seen(where) + rows) | (items == 0)
        order = np.argsort(taken, axis=1, kind="stable")
        kept = ~np.take_along_axis(taken, order, axis=1)
        moved = np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
        return np.where(kept, moved[0], 0), np.where(kept, moved[1], np.float32(-np.inf))

    def _seen(self, where: slice) -> np.ndarray:
        """[B, H], ascending."""
        return np.sort(self._histories.items_of(np.arange(where.start, where.stop)), axis=1)


@dataclass
class _Watch:
    """Searches, and times each search from the batch on the host to the list on the host, the device synchronised.

    The first batch is a warm-up and not counted, unless it is the only one; `warm_up_batches` says so.
    """

    total: int
    batch_size: int
    report: Report | None
    seconds: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def search(
        self, retriever: Retriever, encoder: Any, batch: Batch, k: int, device: torch.device | str
    ) -> tuple[np.ndarray, np.ndarray]:
        started = time.perf_counter()
        found = retriever.search(encoder, batch.to(device), k)
        items, scores = found.items.cpu().numpy(), found.scores.float().cpu().numpy()  # .cpu() waits for the device
        self.seconds.append(time.perf_counter() - started)
        self.sizes.append(len(batch.users))
        if items.shape != (len(batch.users), k) or scores.shape != items.shape:
            raise RunError(
                f"the retriever gave items {items.shape} and scores {scores.shape}; asked for ({len(batch.users)}, {k})"
            )
        _tell(self.report, "search", done=sum(self.sizes), total=self.total, queries_per_second=self._rate())
        return items, scores

    def figures(self) -> dict[str, Any]:
        """Rates over all counted batches; percentiles of a batch's milliseconds, over full batches where there are."""
        skipped = self._skipped()
        full = [
            second
            for second, size in zip(self.seconds[skipped:], self.sizes[skipped:], strict=True)
            if size == self.batch_size
        ]
        milliseconds = 1000 * np.array(full or self.seconds[skipped:] or [0.0])
        return {
            "queries": self.total,
            "queries_per_second": self._rate(),
            "batch_size": self.batch_size,
            "p50_ms": float(np.percentile(milliseconds, 50)),
            "p99_ms": float(np.percentile(milliseconds, 99)),
            "warm_up_batches": skipped,
        }

    def _skipped(self) -> int:
        return WARM_UP_BATCHES if len(self.seconds) > WARM_UP_BATCHES else 0

    def _rate(self) -> float:
        skipped = self._skipped()
        return sum(self.sizes[skipped:]) / max(sum(self.seconds[skipped:]), 1e-9)


@contextmanager
def _evaluating(encoder: Any) -> Iterator[None]:
    """The encoder in eval mode, and afterwards each of its modules in the mode it had."""
    if not isinstance(encoder, nn.Module):
        yield
        return
    before = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextmanager
def _phase(meter: Meter | None, name: str) -> Iterator[Phase]:
    """A phase of the meter, and one that nobody reads where there is no meter."""
    if meter is None:
        yield Phase()
        return
    with meter.phase(name) as phase:
        yield phase


def _tell(report: Report | None, event: str, **values: Any) -> None:
    if report is not None:
        report(event, **values)
