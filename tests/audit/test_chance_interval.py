"""The interval of chance against scipy and exhaustive sums, and the oracle's lists."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from worlds import batch_of

from grbench.audit.chance import interval
from grbench.audit.oracle import Oracle
from grbench.data.histories import Histories
from grbench.data.split import Queries
from grbench.testing import tiny_store
from grbench.types import Codes


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (40, 0.02), (300, 0.1), (1200, 0.01), (50, 1.0), (50, 0.0)])
@pytest.mark.parametrize("unlikely", [0.05, 1e-4])
def test_equal_probabilities_are_the_binomial(count: int, share: float, unlikely: float) -> None:
    least, most = interval(np.full(count, share), unlikely)
    assert binom.cdf(least - 1, count, share) <= unlikely / 2 + 1e-12
    assert binom.sf(most, count, share) <= unlikely / 2 + 1e-12
    # No narrower one would do.
    assert binom.cdf(least, count, share) > unlikely / 2 - 1e-12
    assert most == 0 or binom.sf(most - 1, count, share) > unlikely / 2 - 1e-12


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=7))
def test_unequal_probabilities_are_summed_over_all_outcomes(shares: list[float]) -> None:
    chances = np.zeros(len(shares) + 1)
    for outcome in itertools.product([0, 1], repeat=len(shares)):
        chances[sum(outcome)] += np.prod([p if hit else 1 - p for p, hit in zip(shares, outcome, strict=True)])
    least, most = interval(np.array(shares), 0.2)
    assert chances[:least].sum() <= 0.1 + 1e-9
    assert chances[most + 1 :].sum() <= 0.1 + 1e-9


def test_the_oracle_lists_the_targets_first(tmp_path: Path) -> None:
    store = tiny_store(tmp_path, [[(1, 0, 1)], [(2, 0, 1)], [(3, 0, 1)]], num_items=9)
    users = np.arange(3)
    histories = Histories(store, users, store.offsets[users], store.offsets[users + 1])
    targets = np.array([[5, 0], [2, 8], [9, 0]])  # 9 is no candidate
    oracle = Oracle(Queries(histories, targets, targets, 2))
    oracle.index(None, torch.tensor([2, 4, 5, 8]), Codes(torch.zeros(10, 1), (1,)))
    found = [oracle.search(None, batch_of(*rows), 4) for rows in ([[1], [2]], [[3]])]
    assert found[0].items.tolist() == [[5, 2, 4, 8], [2, 8, 4, 5]]
    assert found[1].items.tolist() == [[2, 4, 5, 8]]
    assert (found[0].scores[:, 1:] < found[0].scores[:, :-1]).all()
    oracle.index(None, torch.tensor([2, 4]), Codes(torch.zeros(10, 1), (1,)))
    few = oracle.search(None, batch_of([1], [2]), 3)
    assert few.items.tolist() == [[2, 4, 0], [2, 4, 0]]
    assert few.scores.isneginf().tolist() == [[False, False, True]] * 2
