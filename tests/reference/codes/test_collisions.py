"""Collision policies: worlds on a line whose answers can be read off, and what must hold of any world."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grbench_reference.codes import collisions
from grbench_reference.codes.collisions import (
    Placement,
    enumerate_codes,
    number_within_groups,
    place_next_nearest,
    prefix_keys,
)

CENTRES = np.array([[0.0], [1.0], [2.0], [10.0]], np.float32)


def nearest_of(points: np.ndarray, centres: np.ndarray) -> Placement:
    apart = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
    return Placement(apart.argmin(axis=1), apart.min(axis=1).astype(np.float32), np.zeros(len(points), bool))


def placed(points: list[float] | np.ndarray, prefixes: list[int], capacity: int = 1) -> Placement:
    rows = np.asarray(points, np.float32).reshape(-1, 1)
    return place_next_nearest(
        np.array(prefixes), nearest_of(rows, CENTRES), CENTRES, rows.__getitem__, capacity=capacity
    )


def one_by_one(points: np.ndarray, prefixes: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The same policy for capacity 1 as a loop: keepers first, then the losers, nearest to their centre first."""
    apart = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
    first, distance = apart.argmin(axis=1), apart.min(axis=1)
    codes = np.full(len(points), -1)
    taken: set[tuple[int, int]] = set()
    order = sorted(range(len(points)), key=lambda item: (distance[item], item))
    for item in order:
        if (prefixes[item], first[item]) not in taken:
            codes[item] = first[item]
            taken.add((prefixes[item], first[item]))
    for item in order:
        if codes[item] < 0:
            free = [code for code in np.argsort(apart[item], kind="stable") if (prefixes[item], code) not in taken]
            codes[item] = free[0]
            taken.add((prefixes[item], free[0]))
    return codes


def test_the_nearest_item_keeps_the_code_and_the_others_take_the_nearest_free_one() -> None:
    # All but the last are nearest to 0. .1 keeps it; .2 comes next and finds 1, then .3 finds 2; 9 has 10 to itself.
    result = placed([0.3, 0.1, 0.2, 9.0], [0, 0, 0, 0])
    assert result.codes.tolist() == [2, 0, 1, 3]
    assert result.moved.tolist() == [True, False, True, False]
    np.testing.assert_allclose(result.distances, [1.7**2, 0.1**2, 0.8**2, 1.0], rtol=1e-5)


def test_a_code_kept_by_another_item_is_not_free() -> None:
    # .2 loses 0 to .1; 1 is kept by 1.4, which is farther from it than .2 would be but nearest to no other centre.
    assert placed([0.1, 0.2, 1.4], [0, 0, 0]).codes.tolist() == [0, 2, 1]


def test_prefixes_do_not_disturb_each_other() -> None:
    assert placed([0.1, 0.1, 0.2, 0.2], [0, 1, 1, 0]).codes.tolist() == [0, 0, 1, 1]


def test_equal_items_fill_a_prefix_in_the_order_of_their_rows() -> None:
    assert placed([0.0, 0.0, 0.0, 0.0], [5, 5, 5, 5]).codes.tolist() == [0, 1, 2, 3]


def test_capacity_lets_the_nearest_in_and_sends_the_farthest_on() -> None:
    # Two an item code: 0 keeps 0 and .1; .2 and .3 fit into 1 together; .4 has to go on to 2.
    assert placed([0.4, 0.3, 0.0, 0.1, 0.2], [0] * 5, capacity=2).codes.tolist() == [2, 1, 0, 0, 1]


def test_who_does_not_fit_in_the_code_he_asked_for_asks_for_the_next() -> None:
    # 1 keeps 1.0; .2 and .3 lose 0 and both ask for 1, which has room for one of them.
    result = placed([0.0, 0.1, 0.2, 0.3, 1.0], [0] * 5, capacity=2)
    assert result.codes.tolist() == [0, 0, 2, 1, 1]


def test_nothing_moves_where_nothing_collides() -> None:
    nearest = Placement(np.array([0, 1]), np.zeros(2, np.float32), np.zeros(2, bool))

    def unread(rows: np.ndarray) -> np.ndarray:
        raise AssertionError("no residual is needed")

    assert place_next_nearest(np.zeros(2, np.int64), nearest, CENTRES, unread, capacity=1) is nearest


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 4), st.booleans())
def test_placing_is_what_one_item_after_another_does(seed: int, items: int, width: int, doubles: bool) -> None:
    random = np.random.default_rng(seed)
    centres = random.permutation(200)[:12, None] * np.ones((1, width)) + random.integers(0, 50, (12, width)) * 1000
    centres = centres.astype(np.float32)
    points = random.integers(0, 50_000, (items, width)).astype(np.float32)
    if doubles:
        points = points[random.integers(0, max(items // 3, 1), items)]
    prefixes = np.arange(items) // 12 if items > 36 else random.permutation(np.arange(items) % 4)
    exact = points.astype(np.float64)
    apart = np.sort(((exact[:, None] - centres[None]) ** 2).sum(axis=2), axis=1)
    if np.diff(apart, axis=1).min(initial=np.inf) <= 1e-5 * apart.max():
        return  # float32 may see a tie where the loop sees none
    result = place_next_nearest(prefixes, nearest_of(exact, centres), centres, points.__getitem__, capacity=1)
    assert result.codes.tolist() == one_by_one(exact, prefixes, centres).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 60))
def test_no_code_takes_more_than_its_capacity_and_full_worlds_fit(seed: int, capacity: int, entries: int) -> None:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(6, 3)).astype(np.float32)
    prefixes = np.repeat(np.arange(4), random.integers(0, 6 * capacity + 1, 4))
    prefixes = np.concatenate([prefixes, np.full(6 * capacity, 4)])  # one that is exactly full
    points = random.normal(size=(len(prefixes), 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(collisions, "ENTRIES", entries)  # so that prefixes are taken a few at a time
        result = place_next_nearest(
            prefixes, nearest_of(points, centres), centres, points.__getitem__, capacity=capacity
        )
    loads = np.bincount(prefixes * 6 + result.codes)
    assert loads.max() <= capacity
    np.testing.assert_allclose(result.distances, ((points - centres[result.codes]) ** 2).sum(axis=1), atol=1e-4)
    assert (result.moved == (result.codes != nearest_of(points, centres).codes)).all()


def test_items_of_a_shared_code_are_numbered_in_the_order_of_their_rows() -> None:
    codes = np.array([[1, 2], [0, 2], [1, 2], [1, 1], [1, 2]])
    keys = prefix_keys(codes, (2, 3))
    assert keys.tolist() == [2, 0, 2, 1, 2]
    assert number_within_groups(keys).tolist() == [0, 0, 1, 0, 2]


def test_counting_out_writes_the_row_in_digits_of_the_later_levels() -> None:
    assert enumerate_codes(7, 7, (9, 2, 3)).tolist() == [
        [7, 0, 0],
        [7, 0, 1],
        [7, 0, 2],
        [7, 1, 0],
        [7, 1, 1],
        [7, 1, 2],
        [8, 0, 0],
    ]
    assert enumerate_codes(4, 2, (4,)).tolist() == [[4], [5]]
    assert enumerate_codes(4, 0, (4, 4)).shape == (0, 2)
