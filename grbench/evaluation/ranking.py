"""Ranking the candidates for every query, and finding the targets' ranks. Retrievers and encoders never see targets.

Shapes: Q queries, B queries of a batch, G targets per query, K list length of the result, S list length searched,
H longest history of a batch, P candidates, N items.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from grbench.cost.meter import Meter, Phase, synchronize
from grbench.data.batches import query_batches
from grbench.data.codes import current_codes
from grbench.data.split import Queries, Split
from grbench.distributed.ranks import current
from grbench.errors import RunError
from grbench.evaluation.filters import HistoryFilter, filtered_candidates
from grbench.interfaces import Encoder, Retriever, optional
from grbench.registry.attributes import history_length
from grbench.types import Batch, Codes, Ranking, Report

WARM_UP_BATCHES = 1


class Ranker:
    """Indexes the candidates at construction and ranks them for queries, in float32, with the encoder in eval mode.

    On several devices each rank indexes all candidates and searches for some of the batches; the first one gets the
    lists of all, and the others' rankings hold their own alone. The batches are those of one device, so that the lists
    are too.

    The meter gets the phases `index`, `search` and `keep`; `report("search", done=, total=, queries_per_second=)` is
    called after each batch. Memory use is that of the result and of one batch. Attribute `codes`: the codes that were
    indexed, the encoder's own where it learns them, else the tokenizer's.

    Raises SuiteError where k is larger than the pool (before anything is encoded) or a filter is unknown, DataError
    where the pool is empty, RunError where the encoder's codes do not fit the items.
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
        self.k = k
        self._retriever, self._encoder, self._split, self._filters = retriever, encoder, split, filters
        self._batch_size, self._device, self._meter, self._report = batch_size, device, meter, report
        self._pool = filtered_candidates(split, k, filters)
        self._in_pool = np.zeros(_num_items(split) + 1, bool)
        self._in_pool[self._pool] = True
        with evaluating(encoder), _phase(meter, "index"):
            _report(report, "index", candidates=len(self._pool))
            self.codes = current_codes(encoder, codes, _num_items(split))
            retriever.index(
                encoder, torch.tensor(self._pool, device=device), self.codes
            )  # a copy: the store is read-only
            synchronize(device)

    def rank(self, queries: Queries) -> Ranking:
        """Ranks lists of k for all queries, timed as the phase `search`: the lists that are scored. Raises RunError
        where the retriever's result is not a ranking of the pool."""
        return self._search(queries, self.k, "search")

    def rank_longer(self, queries: Queries, length: int) -> Ranking:
        """Ranks lists of `length` (at most the whole pool) by a second search, for metrics that are added later.

        Timed as the phase `keep`, which is not part of the search cost. Raises as `rank` does.
        """
        return self._search(queries, min(length, len(self._pool)), "keep")

    def _search(self, queries: Queries, k: int, name: str) -> Ranking:
        """Searches for one item more than k, so that a tie across the end of the list is detected, and with the history
        filter for as many more as it removes from a list of the batch, so that the lists are full."""
        encoder, split = self._encoder, self._split
        history = HistoryFilter(queries, self._in_pool) if "history" in self._filters else None
        lists = _Lists.empty(len(queries), k, queries.targets.shape[1])
        search = _TimedSearch(len(queries), self._batch_size, self._report)
        ranks, size = current(), self._batch_size
        turns, kept = ranks.turns(-(-len(queries) // size), last_is_smaller=len(queries) % size > 0)
        batches = query_batches(queries, history_length=history_length(encoder), batch_size=size, only=turns)
        own: list[slice] = []
        with evaluating(encoder), _phase(self._meter, name) as phase:
            for (rows, batch), is_own in zip(batches, kept, strict=True):
                length = min(k + 1 + (history.max_removed(rows) if history else 0), len(self._pool))
                items, scores = search.run(self._retriever, encoder, batch, length, self._device, counts=is_own)
                if not is_own:
                    continue
                own.append(rows)
                _check(items, scores, self._in_pool, queries.users[rows])
                if history:
                    items, scores = history.remove(rows, items, scores)
                lists.fill(rows, items, scores, queries.targets[rows])
            if not ranks.alone:
                lists.gather(ranks.to_first((own, lists.of(own))))
                search = search.joined(ranks.to_first((search.seconds, search.sizes)))
            phase.note(**search.timings())
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
            histories=queries.histories,
            target_times=queries.target_times,
        )


def target_ranks(items: np.ndarray, scores: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """[Q, G] int64, the pessimistic rank of each target, 1 = first; 0 = not among the first k, and for padding.

    items, scores: [Q, S], best first, S > k where there are more than k candidates; targets: [Q, G], 0-padded. A tie
    counts against the target: its rank is that of the last item with the same score; where that is larger than k, the
    target is not in the list.
    """
    is_target = (items[:, None, :] == targets[:, :, None]) & (targets[:, :, None] > 0)
    target_scores = np.take_along_axis(scores, is_target.argmax(axis=2), axis=1)
    # The scores are sorted, so the rank of the last item of a tie is the number of scores at least as high.
    ranks = (scores[:, None, :] >= target_scores[:, :, None]).sum(axis=2)
    return np.where(is_target.any(axis=2) & (ranks <= k), ranks, 0).astype(np.int64)


def _num_items(split: Split) -> int:
    return split.training.catalogue.num_items


def _check(items: np.ndarray, scores: np.ndarray, in_pool: np.ndarray, users: np.ndarray) -> None:
    """Raises RunError where a retriever's lists are not rankings of the pool. items, scores: [B, S]; in_pool: [N+1];
    users: [B]."""
    empty = items == 0
    outside = (items < 0) | (items >= len(in_pool))
    ordered = np.sort(items, axis=1)
    if (wrong := np.isnan(scores)).any():
        raise RunError(f"the retriever's list for user row {_first(users, wrong)} has NaN scores")
    if (wrong := scores[:, 1:] > scores[:, :-1]).any():
        raise RunError(f"the retriever's list for user row {_first(users, wrong)} is not sorted, best first")
    if (wrong := empty != np.isneginf(scores)).any():
        raise RunError(
            f"the retriever's list for user row {_first(users, wrong)} must have score -inf where, and only where, it "
            "has no item"
        )
    if (wrong := outside | ~(in_pool[np.where(outside, 0, items)] | empty)).any():
        raise RunError(f"the retriever's list for user row {_first(users, wrong)} holds an item not in the pool")
    if (wrong := (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)).any():
        raise RunError(f"the retriever's list for user row {_first(users, wrong)} holds an item twice")


def _first(users: np.ndarray, wrong: np.ndarray) -> int:
    """The user of the first row of `wrong`, [B, ...] bool, that holds a True."""
    return int(users[wrong.any(axis=1).argmax()])


@dataclass
class _Lists:
    """The result, filled batch by batch. items: [Q, K] int64; scores: [Q, K] float32; ranks: [Q, G] int64."""

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

    def fill(self, rows: slice, items: np.ndarray, scores: np.ndarray, targets: np.ndarray) -> None:
        """items, scores: [B, S]; targets: [B, G]."""
        k = self.items.shape[1]
        length = min(k, items.shape[1])
        self.items[rows, :length], self.scores[rows, :length] = items[:, :length], scores[:, :length]
        self.ranks[rows] = target_ranks(items, scores, targets, k)

    def of(self, own: Sequence[slice]) -> list[tuple[np.ndarray, ...]]:
        """The rows of some batches."""
        return [(self.items[rows], self.scores[rows], self.ranks[rows]) for rows in own]

    def gather(self, found: Sequence[tuple[Sequence[slice], Sequence[tuple[np.ndarray, ...]]]]) -> None:
        """Takes the rows over that each rank has found."""
        for own, filled in found:
            for rows, columns in zip(own, filled, strict=True):
                self.items[rows], self.scores[rows], self.ranks[rows] = columns


@dataclass
class _TimedSearch:
    """Searches batches and times each: from the batch on the host to the lists on the host, the device synchronised.

    The first batch is a warm-up, which is not counted unless it is the only one.
    """

    total: int
    batch_size: int
    report: Report | None
    seconds: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    others: tuple[_TimedSearch, ...] = ()

    def run(
        self, retriever: Retriever, encoder: Any, batch: Batch, k: int, device: torch.device | str, *, counts: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """-> items and scores, each [B, k]; raises RunError where the retriever returns another shape. counts: whether
        it is one of the batches that are timed."""
        started = time.perf_counter()
        found = retriever.search(encoder, batch.to(device), k)
        items, scores = found.items.cpu().numpy(), found.scores.float().cpu().numpy()  # .cpu() waits for the device
        if counts:
            self.seconds.append(time.perf_counter() - started)
            self.sizes.append(len(batch.users))
        if items.shape != (len(batch.users), k) or scores.shape != items.shape:
            raise RunError(
                f"the retriever returned items {items.shape} and scores {scores.shape}; both should be "
                f"({len(batch.users)}, {k})"
            )
        _report(self.report, "search", done=sum(self.sizes), total=self.total, queries_per_second=self._rate())
        return items, scores

    def joined(self, of_ranks: Sequence[tuple[list[float], list[int]]]) -> _TimedSearch:
        """That of several ranks, which have searched at the same time; itself where nothing was gathered."""
        if not of_ranks:
            return self
        first, *others = [replace(self, seconds=seconds, sizes=sizes) for seconds, sizes in of_ranks]
        return replace(first, others=tuple(others))

    def timings(self) -> dict[str, Any]:
        """The rate over all counted batches, and percentiles of milliseconds per batch, of full batches if there are
        any."""
        skipped = self._skipped()
        timed = [pair for each in (self, *self.others) for pair in each.counted()]
        full = [second for second, size in timed if size == self.batch_size]
        milliseconds = 1000 * np.array(full or [second for second, _ in timed] or [0.0])
        return {
            "queries": self.total,
            "queries_per_second": sum(each._rate() for each in (self, *self.others) if each.sizes),
            "batch_size": self.batch_size,
            "p50_ms": float(np.percentile(milliseconds, 50)),
            "p99_ms": float(np.percentile(milliseconds, 99)),
            "warm_up_batches": skipped,
        }

    def counted(self) -> list[tuple[float, int]]:
        """(seconds, queries) of the batches that count."""
        skipped = self._skipped()
        return list(zip(self.seconds[skipped:], self.sizes[skipped:], strict=True))

    def _skipped(self) -> int:
        return WARM_UP_BATCHES if len(self.seconds) > WARM_UP_BATCHES else 0

    def _rate(self) -> float:
        skipped = self._skipped()
        return sum(self.sizes[skipped:]) / max(sum(self.seconds[skipped:]), 1e-9)


@contextmanager
def evaluating(encoder: Any) -> Iterator[None]:
    """A context without gradients in which the encoder is in eval mode and its weights do not change
    (`Encoder.fixed_weights`); afterwards each of its modules is in the mode it had before."""
    modules = {module: module.training for module in encoder.modules()} if isinstance(encoder, nn.Module) else {}
    if modules:
        encoder.eval()
    try:
        # no_grad, not inference_mode: tensors that an encoder makes here must be usable in later training.
        with torch.no_grad(), optional(encoder, Encoder.fixed_weights)():
            yield
    finally:
        for module, training in modules.items():
            module.training = training


@contextmanager
def _phase(meter: Meter | None, name: str) -> Iterator[Phase]:
    """A phase of the meter, or one that is not recorded where there is no meter."""
    if meter is None:
        yield Phase()
        return
    with meter.phase(name) as phase:
        yield phase


def _report(report: Report | None, event: str, **values: Any) -> None:
    if report is not None:
        report(event, **values)
