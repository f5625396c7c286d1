"""Policies against collisions, where several items would get the same code. All are vectorised over items.

Shapes: n items, L levels, K codes of the level at hand, P prefixes, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ENTRIES = 1 << 24
"""Distances, or loads, in memory at once."""

Residuals = Callable[[np.ndarray], np.ndarray]
"""Items [m] -> their residuals before the level at hand [m, d] float32."""


@dataclass(frozen=True)
class Placement:
    """Codes of items at one level. codes: [n]; distances: [n] float32, squared, to the code's centre; moved: [n] bool,
    the code is not that of the nearest centre."""

    codes: np.ndarray
    distances: np.ndarray
    moved: np.ndarray


def prefix_keys(codes: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """codes [n, L] -> [n] int64: items have the same number exactly if all their codes are equal. Numbers are 0, 1, ...
    in the order of the codes."""
    keys = np.zeros(len(codes), np.int64)
    for level, size in enumerate(sizes):
        keys = extend_prefixes(keys, codes[:, level], size)
    return keys


def extend_prefixes(prefixes: np.ndarray, codes: np.ndarray, size: int) -> np.ndarray:
    """The prefixes [n], numbered from 0, extended by each item's code [n] of the next level, and numbered anew in the
    order of the codes. size: K."""
    return np.unique(prefixes * size + codes, return_inverse=True)[1].astype(np.int64)


def rank_within_groups(groups: np.ndarray, order: np.ndarray) -> np.ndarray:
    """[n] int64: how many items of the same group precede each item in `order`, in which groups are contiguous."""
    ordered = groups[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(order) else order
    positions = np.empty(len(order), np.int64)
    lengths = np.diff(np.append(starts, len(order)))
    positions[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return positions


def number_within_groups(keys: np.ndarray) -> np.ndarray:
    """The policy `extra_level`: keys [n] of codes -> [n], the items of each code numbered 0, 1, ... in row order."""
    return rank_within_groups(keys, np.argsort(keys, kind="stable"))


def enumerate_codes(first: int, count: int, sizes: Sequence[int]) -> np.ndarray:
    """[count, L] codes, all different, the first level's from `first` on: the row number in mixed radix, with the sizes
    of the later levels as radices."""
    later = int(np.prod(sizes[1:], dtype=np.int64))
    leading, rest = np.divmod(np.arange(count), later)
    digits = np.unravel_index(rest, sizes[1:]) if len(sizes) > 1 else ()
    return np.stack([first + leading, *digits], axis=1).astype(np.int64)


def place_next_nearest(
    prefixes: np.ndarray, nearest: Placement, centres: np.ndarray, residuals: Residuals, *, capacity: int
) -> Placement:
    """The policy `next_nearest` at one level: within a prefix, no code gets more than `capacity` items.

    A code keeps the items nearest to its centre. The others are displaced: they queue up per prefix, nearest first, and
    move to the nearest centre of their prefix that is still free. In each round, the first `capacity` items of every
    queue choose at once; where more items choose a code than it has room for, the nearest get in. A round fills a code
    or empties a queue, so there are at most 2 K rounds.

    prefixes: [n] int64, from 0, each item's codes at the levels before. No prefix may hold more than K x capacity
    items. nearest: each item's nearest centre; centres: [K, d] float32.
    """
    num_codes = len(centres)
    children = prefixes * num_codes + nearest.codes
    order = np.lexsort((nearest.distances, children))
    is_displaced = rank_within_groups(children, order) >= capacity
    if not is_displaced.any():
        return nearest
    codes, distances = nearest.codes.copy(), nearest.distances.copy()
    displaced = np.flatnonzero(is_displaced)
    displaced = displaced[np.lexsort((distances[displaced], prefixes[displaced]))]
    settled = np.flatnonzero(~is_displaced)
    settled = settled[np.argsort(prefixes[settled], kind="stable")]
    for block in _blocks_of_prefixes(displaced, prefixes, num_codes):
        block_prefixes, queue_of = np.unique(prefixes[block], return_inverse=True)
        loads = _loads(settled, prefixes, codes, block_prefixes, num_codes)
        codes[block], distances[block] = _place_queued(queue_of, loads, centres, residuals(block), capacity)
    return Placement(codes, distances, nearest.moved | (codes != nearest.codes))


def _blocks_of_prefixes(displaced: np.ndarray, prefixes: np.ndarray, num_codes: int) -> Iterator[np.ndarray]:
    """Blocks of whole prefixes of the displaced items, sorted by prefix, whose loads and residuals fit in memory."""
    own = prefixes[displaced]
    starts = np.flatnonzero(np.concatenate([[True], own[1:] != own[:-1]]))
    cost = np.maximum(np.diff(np.append(starts, len(displaced))) * 16, num_codes)
    block = np.cumsum(cost) // ENTRIES
    firsts = starts[np.concatenate([[True], block[1:] != block[:-1]])]
    yield from np.split(displaced, firsts[1:])


def _loads(
    settled: np.ndarray, prefixes: np.ndarray, codes: np.ndarray, block_prefixes: np.ndarray, num_codes: int
) -> np.ndarray:
    """[len(block_prefixes), K] int64: how many settled items each code has. settled: sorted by prefix."""
    first, last = np.searchsorted(prefixes[settled], [block_prefixes[0], block_prefixes[-1] + 1])
    rows = settled[first:last]
    rows = rows[np.isin(prefixes[rows], block_prefixes)]
    flat = np.searchsorted(block_prefixes, prefixes[rows]) * num_codes + codes[rows]
    loads: np.ndarray = np.bincount(flat, minlength=len(block_prefixes) * num_codes).reshape(-1, num_codes)
    return loads


def _place_queued(
    queue_of: np.ndarray, loads: np.ndarray, centres: np.ndarray, residuals: np.ndarray, capacity: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and squared distances [m] of queued items. queue_of: [m] ascending, the row of `loads` of each item's
    prefix; loads: [P, K], updated in place; residuals: [m, d]."""
    num_codes = len(centres)
    codes, distances = np.empty(len(queue_of), np.int64), np.empty(len(queue_of), np.float32)
    queue = np.arange(len(queue_of))
    heads = np.searchsorted(queue_of, np.arange(len(loads)))
    ends = np.append(heads[1:], len(queue_of))
    while len(active := np.flatnonzero(heads < ends)):
        counts = np.minimum(ends[active] - heads[active], capacity)
        owner = np.repeat(active, counts)
        slots = np.arange(len(owner)) + np.repeat(heads[active] - (np.cumsum(counts) - counts), counts)
        rows = queue[slots]
        choice, distance = _nearest_free(residuals[rows], centres, loads, owner, capacity)
        flat = owner * num_codes + choice
        fits = rank_within_groups(flat, np.lexsort((distance, flat))) < capacity - loads[owner, choice]
        codes[rows[fits]], distances[rows[fits]] = choice[fits], distance[fits]
        np.add.at(loads, (owner[fits], choice[fits]), 1)
        # Items that did not get in stay at the head of their queue.
        queue[slots] = rows[np.lexsort((~fits, owner))]
        heads += np.bincount(owner[fits], minlength=len(heads))
    return codes, distances


def _nearest_free(
    residuals: np.ndarray, centres: np.ndarray, loads: np.ndarray, owner: np.ndarray, capacity: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre with room of each item [m], and its squared distance. owner: [m], the row of `loads`."""
    choice, distance = np.empty(len(residuals), np.int64), np.empty(len(residuals), np.float32)
    squared_norms = np.einsum("kd,kd->k", centres, centres)
    step = max(1, ENTRIES // len(centres))
    for first in range(0, len(residuals), step):
        block = slice(first, first + step)
        distances = squared_norms - 2 * (residuals[block] @ centres.T)
        distances[loads[owner[block]] >= capacity] = np.inf
        choice[block] = distances.argmin(axis=1)
        distance[block] = distances.min(axis=1) + np.einsum("nd,nd->n", residuals[block], residuals[block])
    return choice, np.maximum(distance, 0)
