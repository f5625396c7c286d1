"""Lists of a file as a ranking of a split's test queries, once they are checked against it.

Shapes: Q queries, L lists, E entries of all lists (of a block), G targets per query, K list length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grbench.errors import DataError, RunError
from grbench.evaluation.filters import filtered_candidates
from grbench.ranking_files.given_lists import GivenLists
from grbench.types import Progress, Ranking

if TYPE_CHECKING:
    from grbench.data.split import Split

LISTS_AT_ONCE = 1 << 14
LARGEST_SCORE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class GivenRanking:
    """ranking: of all queries, with lists of the length that was asked for; not_evaluated: lists of users who are not
    evaluated, which were left out; missing: evaluated users without a list, whose lists are empty."""

    ranking: Ranking
    not_evaluated: int
    missing: int


def given_ranking(
    given: GivenLists,
    split: Split,
    path: Path,
    *,
    length: int,
    filters: Sequence[str] = (),
    empty_if_missing: bool = False,
    report: Progress,
) -> GivenRanking:
    """The lists, cut to `length`, with pessimistic ranks: a tie counts against the target, in the whole list as it is
    given. Without scores the order is taken for strict.

    Raises RunError, one message with a count and the first case, where a user has two lists or, unless they are to be
    empty, none; where scores are not sorted, NaN or infinite; where an item is in a list twice, is no candidate, or is
    one that the filters leave out. DataError where the protocol evaluates some users more than once.
    """
    queries = split.test
    names = _SourceIds(split, path)
    query_of = np.full(split.training.catalogue.num_users, -1, np.int64)
    query_of[queries.users] = np.arange(len(queries))
    if len(np.unique(queries.users)) < len(queries):
        raise DataError("the protocol evaluates some users more than once, and lists of a file are told apart by user")
    if len(repeated := _repeated(given.users)):
        raise RunError(
            f"{path}: {len(repeated):,} users have more than one list, the first is user {names.user(repeated[0])}"
        )
    evaluated = query_of[given.users] >= 0
    absent = np.setdiff1d(np.arange(len(queries)), query_of[given.users[evaluated]])
    if len(absent) and not empty_if_missing:
        raise RunError(
            f"{path}: {len(absent):,} of the {len(queries):,} evaluated users have no list, the first is user "
            f"{names.user(queries.users[absent[0]])}; --missing empty scores them as if nothing was found"
        )
    in_pool = np.zeros(split.training.catalogue.num_items + 1, bool)
    in_pool[filtered_candidates(split, 1, filters)] = True
    checks = _Checks(split, in_pool, "history" in filters, names)
    items = np.zeros((len(queries), length), np.int64)
    scores = np.full((len(queries), length), -np.inf, np.float32)
    ranks = np.zeros(queries.targets.shape, np.int64)
    done = 0
    for block in _blocks(given, evaluated, query_of):
        checks.look_at(block)
        rank = _ranks(block)
        here = block.places < length
        rows, columns = block.queries[block.lists[here]], block.places[here]
        items[rows, columns] = block.items[here]
        values = -block.places.astype(np.float64) if block.scores is None else block.scores
        scores[rows, columns] = np.clip(values[here], -LARGEST_SCORE, LARGEST_SCORE)
        _fill_target_ranks(ranks, block, rank, queries.targets)
        done += len(block.queries)
        report("checking the lists", done, int(evaluated.sum()))
    checks.raise_found()
    ranking = Ranking(
        users=queries.users,
        items=items,
        scores=scores,
        targets=queries.targets,
        target_actions=queries.target_actions,
        ranks=np.where(ranks <= length, ranks, 0),
        actions=split.training.catalogue.actions,
        pool=len(split.candidates),
        history_lengths=queries.histories.lengths,
        training=split.training,
    )
    return GivenRanking(ranking, int((~evaluated).sum()), len(absent))


@dataclass(frozen=True)
class _ListBlock:
    """Some lists, entry by entry. queries: [L]; lists: [E], the list of each entry; places: [E] from 0; items: [E];
    scores: [E] or None; tied_beyond: [L]."""

    queries: np.ndarray
    lists: np.ndarray
    places: np.ndarray
    items: np.ndarray
    scores: np.ndarray | None
    tied_beyond: np.ndarray


def _blocks(given: GivenLists, evaluated: np.ndarray, query_of: np.ndarray) -> Iterator[_ListBlock]:
    """The lists of evaluated users."""
    for first in range(0, len(given.users), LISTS_AT_ONCE):
        chosen = slice(first, first + LISTS_AT_ONCE)
        lengths, used = given.lengths[chosen], evaluated[chosen]
        start, stop = given.offsets[first], given.offsets[min(first + LISTS_AT_ONCE, len(given.users))]
        entry = np.repeat(used, lengths)
        lengths = lengths[used]
        starts = np.cumsum(lengths) - lengths
        yield _ListBlock(
            queries=query_of[given.users[chosen][used]],
            lists=np.repeat(np.arange(len(lengths)), lengths),
            places=np.arange(int(lengths.sum())) - np.repeat(starts, lengths),
            items=given.items[start:stop][entry].astype(np.int64),
            scores=None if given.scores is None else given.scores[start:stop][entry],
            tied_beyond=given.tied_beyond[chosen][used],
        )


def _ranks(block: _ListBlock) -> np.ndarray:
    """[E]: the pessimistic rank of each entry, that of the last one with its score; 0 where this tie goes on beyond the
    list."""
    if not len(block.items):
        return np.zeros(0, np.int64)
    new_list = block.lists[1:] != block.lists[:-1]
    scores = block.scores
    changes = np.ones_like(new_list) if scores is None else new_list | (scores[1:] != scores[:-1])
    ends = np.append(np.flatnonzero(changes), len(block.items) - 1)
    run_of = np.concatenate([[0], np.cumsum(changes)])
    last_of_list = np.append(new_list, True)[ends]
    beyond = last_of_list & block.tied_beyond[block.lists[ends]]
    return np.asarray(np.where(beyond, 0, block.places[ends] + 1)[run_of])


def _fill_target_ranks(ranks: np.ndarray, block: _ListBlock, rank: np.ndarray, targets: np.ndarray) -> None:
    """Writes the ranks of the block's targets. ranks, targets: [Q, G]."""
    queries = block.queries[block.lists]
    for column in range(targets.shape[1]):
        found = np.flatnonzero(block.items == targets[queries, column])  # no item is 0, as padding is
        ranks[queries[found], column] = rank[found]


class _Checks:
    """Looks for faults in all blocks, counts each kind, and keeps its first case."""

    def __init__(self, split: Split, in_pool: np.ndarray, keeps_history_out: bool, names: _SourceIds) -> None:
        self._histories, self._in_pool, self._keeps_history_out = split.test.histories, in_pool, keeps_history_out
        self._names = names
        self._found: dict[str, list[Any]] = {}

    def look_at(self, block: _ListBlock) -> None:
        if block.scores is not None:
            self._note("a score that is NaN or infinite", ~np.isfinite(block.scores), block)
            rises = (block.scores[1:] > block.scores[:-1]) & (block.lists[1:] == block.lists[:-1])
            self._note("scores that are not sorted, best first", np.append(False, rises)[: len(block.items)], block)
        size = len(self._in_pool)
        keys = block.lists * size + block.items
        order = np.argsort(keys, kind="stable")
        again = np.zeros(len(keys), bool)
        again[order[1:]] = keys[order[1:]] == keys[order[:-1]]
        self._note("an item twice", again, block)
        self._note("an item that is no candidate, or is filtered out", ~self._in_pool[block.items], block)
        if self._keeps_history_out and len(block.queries):
            history = self._histories.items_of(block.queries)
            met = (history + np.arange(len(history))[:, None] * size)[history > 0]
            self._note("an item of the user's history, which the filter leaves out", np.isin(keys, met), block)

    def raise_found(self) -> None:
        """Raises RunError for the first kind of fault that was found."""
        for fault, (count, first, query) in self._found.items():
            user, item = self._names.user(self._histories.users[query]), self._names.item(first)
            lists = "lists have" if count > 1 else "list has"
            raise RunError(
                f"{self._names.path}: {count:,} {lists} {fault}; the first is that of user {user}, at item {item}"
            )

    def _note(self, fault: str, wrong: np.ndarray, block: _ListBlock) -> None:
        if wrong.any():
            entry = int(wrong.argmax())
            lists = len(np.unique(block.lists[wrong]))
            self._found.setdefault(fault, [0, block.items[entry], block.queries[block.lists[entry]]])[0] += lists


class _SourceIds:
    """The source's ids, for messages about a file."""

    def __init__(self, split: Split, path: Path) -> None:
        self._catalogue, self.path = split.training.catalogue, path

    def user(self, row: int) -> str:
        return str(self._catalogue.user_ids[row])

    def item(self, row: int) -> str:
        return str(self._catalogue.item_ids[row])


def _repeated(users: np.ndarray) -> np.ndarray:
    """The users that occur more than once."""
    ordered = np.sort(users)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
