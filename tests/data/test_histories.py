"""Whether histories contain items, against Python's sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grbench.data.histories import Histories
from grbench.testing import tiny_store


@pytest.mark.parametrize("rows_at_once", [1, 3, 4096])
def test_a_history_contains_its_visible_items_and_no_others(
    tmp_path: Path, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grbench.data.histories.ROWS_AT_ONCE", rows_at_once)
    rng = np.random.default_rng(0)
    events = [[(int(item), 0, 1) for item in rng.integers(1, 9, size=rng.integers(1, 8))] for _ in range(20)]
    store = tiny_store(tmp_path, events, num_items=9)
    starts, stops = np.asarray(store.offsets[:-1]), np.asarray(store.offsets[1:])
    stops = starts + rng.integers(0, stops - starts + 1)  # some see nothing
    histories = Histories(store, np.arange(20), starts, stops)
    items = rng.integers(0, 10, size=(20, 3))
    visible = [
        {item for item, _, _ in row[: stop - start]} for row, start, stop in zip(events, starts, stops, strict=True)
    ]
    expected = [[item in seen for item in row] for row, seen in zip(items.tolist(), visible, strict=True)]
    assert histories.contain(items).tolist() == expected
    assert histories.contain(np.zeros((20, 0), np.int64)).shape == (20, 0)
    assert histories.select(np.arange(0)).contain(np.zeros((0, 2), np.int64)).shape == (0, 2)
