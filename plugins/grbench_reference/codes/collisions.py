"""What is done where items would share a code. Every policy works on whole arrays; none loops over items.

Shapes: n items, L levels, K codes of the level at hand, P prefixes, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ENTRIES = 1 << 24
"""Distances, or counts of loads, held at once."""

Residuals = Callable[[np.ndarray], np.ndarray]
"""rows [m] -> what is left of those items before the level at hand [m, d] float32."""


@dataclass(frozen=True)
class Placement:
    """codes: [n]; distances: [n] float32, squared, to the code's centre; moved: [n] bool, it is not the nearest one."""

    codes: np.ndarray
    distances: np.ndarray
    moved: np.ndarray


def prefix_keys(codes: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """codes [n, L] -> [n] int64, the same number where all L codes are the same, numbered 0.. in the codes' order."""
    keys = np.zeros(len(codes), np.int64)
    for level, size in enumerate(sizes):
        keys = np.unique(keys * size + codes[:, level], return_inverse=True)[1].astype(np.int64)
    return keys


def positions_within(groups: np.ndarray, order: np.ndarray) -> np.ndarray:
    """[n] int64: how many items of the same group stand before each one in `order`, which lists whole groups."""
    ordered = groups[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(order) else order
    positions = np.empty(len(order), np.int64)
    lengths = np.diff(np.append(starts, len(order)))
    positions[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return positions


def number_within(keys: np.ndarray) -> np.ndarray:
    """The policy `extra_level`: [n], the items of a shared code numbered 0.. in the order of their rows."""
    return positions_within(keys, np.argsort(keys, kind="stable"))


def count_out(first: int, count: int, sizes: Sequence[int]) -> np.ndarray:
    """[count, L] codes, all different, whose first level starts at `first`: the number of the row, written in digits
    of the later levels' sizes."""
    later = int(np.prod(sizes[1:], dtype=np.int64))
    leading, rest = np.divmod(np.arange(count), later)
    digits = np.unravel_index(rest, sizes[1:]) if len(sizes) > 1 else ()
    return np.stack([first + leading, *digits], axis=1).astype(np.int64)


def place(
    prefixes: np.ndarray, nearest: Placement, centres: np.ndarray, residuals: Residuals, *, capacity: int
) -> Placement:
    """The policy `next_nearest` at one level: no code takes more than `capacity` items of a prefix.

    A code keeps the items nearest to its centre. Those that lose wait in a queue of their prefix, nearest first, and
    take the nearest centre that is still free there: with capacity 1, on the last level, one of each prefix a round;
    with more, as many as a code can hold, the nearest of which get in. A round fills a code or empties a queue, so
    there are at most 2 K of them, and each looks at every prefix at once.

    prefixes: [n] int64, from 0, the prefix that each item is in. No prefix may hold more than K x capacity items.
    nearest: each item's nearest centre; centres: [K, d] float32.
    """
    num_codes = len(centres)
    children = prefixes * num_codes + nearest.codes
    order = np.lexsort((nearest.distances, children))
    lost = positions_within(children, order) >= capacity
    if not lost.any():
        return nearest
    codes, distances = nearest.codes.copy(), nearest.distances.copy()
    losers = np.flatnonzero(lost)
    losers = losers[np.lexsort((distances[losers], prefixes[losers]))]
    keepers = np.flatnonzero(~lost)
    keepers = keepers[np.argsort(prefixes[keepers], kind="stable")]
    for queue in _some_prefixes(losers, prefixes, num_codes):
        crowded, home = np.unique(prefixes[queue], return_inverse=True)
        loads = _loads(keepers, prefixes, codes, crowded, num_codes)
        placed_codes, placed_distances = _empty_queues(home, loads, centres, residuals(queue), capacity)
        codes[queue], distances[queue] = placed_codes, placed_distances
    return Placement(codes, distances, nearest.moved | (codes != nearest.codes))


def _some_prefixes(losers: np.ndarray, prefixes: np.ndarray, num_codes: int) -> Iterator[np.ndarray]:
    """The losers, sorted by prefix, in stretches of whole prefixes whose loads and residuals fit in memory."""
    own = prefixes[losers]
    starts = np.flatnonzero(np.concatenate([[True], own[1:] != own[:-1]]))
    cost = np.maximum(np.diff(np.append(starts, len(losers))) * 16, num_codes)
    stretch = np.cumsum(cost) // ENTRIES
    firsts = starts[np.concatenate([[True], stretch[1:] != stretch[:-1]])]
    yield from np.split(losers, firsts[1:])


def _loads(
    keepers: np.ndarray, prefixes: np.ndarray, codes: np.ndarray, crowded: np.ndarray, num_codes: int
) -> np.ndarray:
    """[len(crowded), K] int64: how many items each code of those prefixes keeps. keepers: sorted by prefix."""
    first, last = np.searchsorted(prefixes[keepers], [crowded[0], crowded[-1] + 1])
    rows = keepers[first:last]
    rows = rows[np.isin(prefixes[rows], crowded)]
    flat = np.searchsorted(crowded, prefixes[rows]) * num_codes + codes[rows]
    loads: np.ndarray = np.bincount(flat, minlength=len(crowded) * num_codes).reshape(-1, num_codes)
    return loads


def _empty_queues(
    home: np.ndarray, loads: np.ndarray, centres: np.ndarray, left: np.ndarray, capacity: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and squared distances [m] of queued items. home: [m] ascending, the row of `loads` each belongs to;
    loads: [P, K], counted up in place; left: [m, d] their residuals."""
    num_codes = len(centres)
    codes, distances = np.empty(len(home), np.int64), np.empty(len(home), np.float32)
    queue = np.arange(len(home))
    heads = np.searchsorted(home, np.arange(len(loads)))
    ends = np.append(heads[1:], len(home))
    while len(active := np.flatnonzero(heads < ends)):
        counts = np.minimum(ends[active] - heads[active], capacity)
        owner = np.repeat(active, counts)
        slots = np.arange(len(owner)) + np.repeat(heads[active] - (np.cumsum(counts) - counts), counts)
        rows = queue[slots]
        choice, distance = _nearest_free(left[rows], centres, loads, owner, capacity)
        flat = owner * num_codes + choice
        fits = positions_within(flat, np.lexsort((distance, flat))) < capacity - loads[owner, choice]
        codes[rows[fits]], distances[rows[fits]] = choice[fits], distance[fits]
        np.add.at(loads, (owner[fits], choice[fits]), 1)
        # Who did not get in stays at the head of the queue.
        queue[slots] = rows[np.lexsort((~fits, owner))]
        heads += np.bincount(owner[fits], minlength=len(heads))
    return codes, distances


def _nearest_free(
    left: np.ndarray, centres: np.ndarray, loads: np.ndarray, owner: np.ndarray, capacity: int
) -> tuple[np.ndarray, np.ndarray]:
    choice, distance = np.empty(len(left), np.int64), np.empty(len(left), np.float32)
    lengths = np.einsum("kd,kd->k", centres, centres)
    step = max(1, ENTRIES // len(centres))
    for first in range(0, len(left), step):
        block = slice(first, first + step)
        apart = lengths - 2 * (left[block] @ centres.T)
        apart[loads[owner[block]] >= capacity] = np.inf
        choice[block] = apart.argmin(axis=1)
        distance[block] = apart.min(axis=1) + np.einsum("nd,nd->n", left[block], left[block])
    return choice, np.maximum(distance, 0)
