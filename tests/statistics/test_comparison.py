"""Corrected tests: Holm's adjustment by hand, and few false differences."""

from __future__ import annotations

import numpy as np
import pytest

from grbench.statistics.comparison import against, holm
from grbench.statistics.scores import Scores


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

    found = against("base", {"base": method(0.3), "same": method(0.3), "better": method(0.4), "worse": method(0.2)})
    assert {name: found[name].differs for name in found} == {"same": False, "better": True, "worse": True}
    assert found["better"].difference.value == pytest.approx(0.1, abs=0.03)
    assert found["worse"].difference.value < 0


def test_the_chance_of_any_false_difference_in_a_table_stays_below_the_level() -> None:
    rng = np.random.default_rng(1)
    tables = 400
    wrong = 0
    for _ in range(tables):
        methods = {str(number): Scores(rng.normal(size=(3, 40)) + rng.normal(0, 0.2, (3, 1))) for number in range(8)}
        wrong += any(comparison.differs for comparison in against("0", methods).values())
    assert wrong / tables <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / tables)
