"""Exact search by inner product: the k best of P vectors for each query, in bounded memory, on CPU and GPU alike.

Looking for the k largest of P scores a query costs more than computing them. So the items are put into groups of
consecutive ones; a pass over all items keeps no score but each group's maximum, and only the k groups with the
largest maxima, which must hold the k best items, are scored again and sorted.

Shapes: Q queries, P items, D width, C columns. Positions are rows of the vectors, 0..P-1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 32
"""Items a group. Fewer make the maxima cost more, more make the second look at the chosen groups cost more."""


class _Sizes(NamedTuple):
    """items: scored in one multiplication; queries: searched together; floats: gathered at once in the second look.

    On a CPU a block of scores should stay in the cache; on a GPU a block should be worth a kernel's launch.
    """

    items: int
    queries: int
    floats: int


_CPU, _GPU = _Sizes(1 << 11, 1 << 8, 1 << 20), _Sizes(1 << 16, 1 << 10, 1 << 26)


class ExactSearch:
    """The k best of some vectors by inner product. Ties go to the item that comes first.

    vectors: [P, D] float32. block: items scored at once (None = what suits the device).
    """

    def __init__(self, vectors: Tensor, *, block: int | None = None) -> None:
        self.vectors = vectors
        self._sizes = _CPU if vectors.device.type == "cpu" else _GPU
        self._block = -(-(block or self._sizes.items) // GROUP) * GROUP

    @torch.no_grad()
    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """queries [Q, D] -> positions and scores [Q, min(k, P)], best first. Scores must not be NaN."""
        k = min(k, len(self.vectors))
        if not len(queries):
            return queries.new_zeros((0, k), dtype=torch.int64), queries.new_zeros((0, k))
        with full_precision(queries.device.type):
            return _joined(_in_threads(lambda some: self._search(some, k), queries, self._sizes.queries))

    @torch.no_grad()  # for each thread anew
    def _search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if -(-len(self.vectors) // GROUP) < 4 * k:  # the chosen groups would hold a good part of all items
            return rank_positions(queries, self.vectors, largest(queries @ self.vectors.T, k), k)
        groups = largest(self._group_maxima(queries), k)
        at_once = max(1, self._sizes.floats // (k * GROUP * queries.shape[1]))
        return _joined(
            [
                rank_positions(some, self.vectors, self._members(chosen), k)
                for some, chosen in zip(torch.split(queries, at_once), torch.split(groups, at_once), strict=True)
            ]
        )

    def _group_maxima(self, queries: Tensor) -> Tensor:
        """[Q, groups]: the best score in each group."""
        count = len(self.vectors)
        columns = queries.T.contiguous()
        maxima = queries.new_empty((-(-count // GROUP), len(queries)))
        scores = queries.new_empty((min(self._block, count), len(queries)))
        for first in range(0, count, self._block):
            last = min(first + self._block, count)
            whole = (last - first) // GROUP
            part = torch.mm(self.vectors[first:last], columns, out=scores[: last - first])
            row = first // GROUP
            by_group = part[: whole * GROUP].view(whole, GROUP, len(queries))
            torch.amax(by_group, dim=1, out=maxima[row : row + whole])
            if whole * GROUP < last - first:  # the last group of all is not full
                torch.amax(part[whole * GROUP :], dim=0, out=maxima[row + whole])
        return maxima.T.contiguous()

    def _members(self, groups: Tensor) -> Tensor:
        """groups [Q, n], ascending -> positions [Q, n * GROUP], ascending, -1 where the last group is not full."""
        positions = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=groups.device)).flatten(1)
        return positions.masked_fill_(positions >= len(self.vectors), -1)


def rank_positions(
    queries: Tensor, vectors: Tensor, positions: Tensor, k: int, *, added: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scores some positions of each query and sorts them: positions and scores [Q, k], best first.

    positions: [Q, C], C >= k, -1 = none, whose score is -inf; added: [Q, C], to their scores. Equal scores keep the
    order of the columns. Each product is summed by itself, so a pair's score does not depend on what else is scored,
    nor on the device's way to multiply matrices: two items with equal vectors get equal scores wherever they lie.
    """
    gathered = vectors.index_select(0, positions.clamp(min=0).flatten()).view(*positions.shape, vectors.shape[1])
    scores = gathered.mul_(queries[:, None, :]).sum(dim=2)
    scores = (scores if added is None else scores + added).masked_fill_(positions < 0, float("-inf"))
    if positions.shape[1] > k:
        columns = largest(scores, k)
        positions, scores = positions.gather(1, columns), scores.gather(1, columns)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return positions.gather(1, order), scores


def largest(scores: Tensor, k: int) -> Tensor:
    """[Q, k] int64: the columns of the k largest of scores [Q, C], ascending; of equal ones, those that come first.

    `torch.topk` picks any of several equal values at the edge, so the rows where that matters are done again.
    """
    if k >= scores.shape[1]:
        return torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    values, columns = scores.topk(k + 1, dim=1)
    columns = columns[:, :k].sort(dim=1).values
    unclear = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
    for rows in torch.split(unclear, 64):  # a few at a time: this path makes several copies of the scores
        again, edge = scores[rows], values[rows, k - 1 : k]
        above, level = again > edge, again == edge
        wanted = k - above.sum(dim=1, keepdim=True)
        kept = above | (level & (level.cumsum(dim=1, dtype=torch.int32) <= wanted))
        columns[rows] = kept.nonzero()[:, 1].view(-1, k)
    return columns


def _joined(found: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    positions, scores = zip(*found, strict=True)
    return torch.cat(positions), torch.cat(scores)


def _in_threads(
    search: Callable[[Tensor], tuple[Tensor, Tensor]], queries: Tensor, most: int
) -> list[tuple[Tensor, Tensor]]:
    """search(some queries) for all of them, at most `most` at a time; on a CPU each of torch's threads takes its own.

    Each thread computes alone. Torch's usual way, all threads on each small operation, would have them wait for one
    another twice a block, which is slow where cores are few or shared.
    """
    threads = torch.get_num_threads() if queries.device.type == "cpu" else 1
    parts = torch.split(queries, min(most, max(32, -(-len(queries) // threads))))
    if threads == 1 or len(parts) == 1:
        return [search(some) for some in parts]
    # The number of threads holds for the thread that sets it, and for those that start later: hence set back.
    with ThreadPoolExecutor(min(threads, len(parts)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return list(pool.map(search, parts))
        finally:
            torch.set_num_threads(threads)


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """float32 products as they are: neither autocast nor TF32, which a training loop may have switched on."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
