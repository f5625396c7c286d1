"""Corrected tests: Holm's adjustment by hand, and few false differences."""

from __future__ import annotations

import numpy as np
import pytest

from grbench.statistics.comparison import UsersWon, against, best_methods, holm, users_won
from grbench.statistics.scores import Scores, pooled_seed_variance


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1: .04, .06, .06 (not .06 < .06), .06 (never below the one before).
    assert holm([0.04, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_nothing_but_what_differs_is_called_different() -> None:
    rng = np.random.default_rng(0)
    users = rng.random(1_000)

    def method(rate: float) -> Scores:
        return Scores((users < rate + rng.normal(0, 0.02, (3, 1_000))).astype(float))

    methods = {"base": method(0.3), "same": method(0.3), "better": method(0.4), "worse": method(0.2)}
    found = against("base", methods, pooled_seed_variance(methods.values()))
    assert {name: found[name].differs for name in found} == {"same": False, "better": True, "worse": True}
    assert found["better"].difference.value == pytest.approx(0.1, abs=0.03)
    assert found["worse"].difference.value < 0


def test_the_chance_of_any_false_difference_in_a_table_stays_below_the_level() -> None:
    rng = np.random.default_rng(1)
    tables = 400
    wrong = 0
    for _ in range(tables):
        methods = {str(number): Scores(rng.normal(size=(3, 40)) + rng.normal(0, 0.2, (3, 1))) for number in range(8)}
        found = against("0", methods, pooled_seed_variance(methods.values()))
        wrong += any(comparison.differs for comparison in found.values())
    assert wrong / tables <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / tables)


def test_rows_that_cannot_be_told_from_the_best_share_its_place() -> None:
    rng = np.random.default_rng(2)
    users = rng.random(4_000)
    methods = {
        name: Scores((users < rate + rng.normal(0, 0.05, (3, 4_000))).astype(float))
        for name, rate in {"best": 0.3, "close": 0.298, "far": 0.25}.items()
    }
    seeds = pooled_seed_variance(methods.values())
    assert best_methods(methods, seeds, higher_is_better=True) == {"best", "close"}
    assert best_methods(methods, seeds, higher_is_better=False) == {"far"}
    assert best_methods({}, seeds, higher_is_better=True) == frozenset()


def test_users_are_won_by_their_mean_over_seeds() -> None:
    first, second = Scores(np.array([[1.0, 0, 1, 0], [0.0, 0, 1, 0]])), Scores(np.array([[0.0, 1, 1, 0]]))
    assert users_won(first, second, higher_is_better=True) == UsersWon(better=1, worse=1, same=2)
    assert users_won(second, first, higher_is_better=False) == UsersWon(better=1, worse=1, same=2)
