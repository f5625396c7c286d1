"""Exact search by inner product: the k best of P vectors for each query, in bounded memory, on CPU and GPU alike.

Selecting the k largest of P scores costs more than computing them. So consecutive items form groups: a first pass over
all items keeps only the maximum score of each group. The k best items are all in the k groups with the largest maxima,
so only these groups are scored again and sorted.

Shapes: Q queries, P items, D width. Positions are rows of the vectors, 0..P-1.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from grbench_reference.retrievers.top_k import full_precision, largest, rank_positions

GROUP = 32
"""Items per group: smaller groups make the first pass slower, larger groups the second."""


class _Sizes(NamedTuple):
    """items: scored in one matrix product; queries: searched together; floats: gathered at once in the second pass.

    On a CPU a block of scores should fit in the cache; on a GPU it should be large enough for the kernel launch.
    """

    items: int
    queries: int
    floats: int


_CPU, _GPU = _Sizes(1 << 11, 1 << 8, 1 << 20), _Sizes(1 << 16, 1 << 10, 1 << 26)


class ExactSearch:
    """The k vectors with the largest inner products. Ties go to the smaller position.

    vectors: [P, D] float32. block: items scored at once (None = a default for the device).
    """

    def __init__(self, vectors: Tensor, *, block: int | None = None) -> None:
        self.vectors = vectors
        self._sizes = _CPU if vectors.device.type == "cpu" else _GPU
        self._block = -(-(block or self._sizes.items) // GROUP) * GROUP

    @torch.no_grad()
    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """queries [Q, D] -> positions and scores [Q, min(k, P)], best first. No score may be NaN."""
        k = min(k, len(self.vectors))
        if not len(queries):
            return queries.new_zeros((0, k), dtype=torch.int64), queries.new_zeros((0, k))
        with full_precision(queries.device.type):
            return _joined(_in_threads(lambda some: self._search(some, k), queries, self._sizes.queries))

    @torch.no_grad()  # the setting is per thread
    def _search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if -(-len(self.vectors) // GROUP) < 4 * k:  # k groups would be a large part of all items
            return rank_positions(queries, self.vectors, largest(queries @ self.vectors.T, k), k)
        groups = largest(self._group_maxima(queries), k)
        block = max(1, self._sizes.floats // (k * GROUP * queries.shape[1]))
        return _joined(
            [
                rank_positions(some, self.vectors, self._members(chosen), k)
                for some, chosen in zip(torch.split(queries, block), torch.split(groups, block), strict=True)
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
            if whole * GROUP < last - first:  # the last group may not be full
                torch.amax(part[whole * GROUP :], dim=0, out=maxima[row + whole])
        return maxima.T.contiguous()

    def _members(self, groups: Tensor) -> Tensor:
        """groups [Q, n], ascending -> positions [Q, n * GROUP], ascending; -1 behind the last item."""
        positions = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=groups.device)).flatten(1)
        return positions.masked_fill_(positions >= len(self.vectors), -1)


def _joined(found: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    positions, scores = zip(*found, strict=True)
    return torch.cat(positions), torch.cat(scores)


def _in_threads(
    search: Callable[[Tensor], tuple[Tensor, Tensor]], queries: Tensor, limit: int
) -> list[tuple[Tensor, Tensor]]:
    """Calls `search` on blocks of at most `limit` queries; on a CPU with one single-threaded call per torch thread.

    Parallelism over blocks instead of within each operation: otherwise the threads would wait for each other twice per
    block, which is slow on few or shared cores.
    """
    threads = torch.get_num_threads() if queries.device.type == "cpu" else 1
    parts = torch.split(queries, min(limit, max(32, -(-len(queries) // threads))))
    if threads == 1 or len(parts) == 1:
        return [search(some) for some in parts]
    # torch.set_num_threads also holds for threads started later, so it is restored.
    with ThreadPoolExecutor(min(threads, len(parts)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return list(pool.map(search, parts))
        finally:
            torch.set_num_threads(threads)
