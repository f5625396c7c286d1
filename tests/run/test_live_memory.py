"""What is alive at once, with tensors whose bytes are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from grbench.run.live_memory import LARGE, LiveBytes, Unfilled, peak

KIB = 1 << 10


def floats(kib: int) -> torch.Tensor:
    return torch.zeros(kib * KIB // 4)


def test_the_peak_is_what_was_alive_together() -> None:
    with LiveBytes(limit=LARGE) as live:
        first = floats(8)
        second = floats(4)
        del second
        third = floats(2)
        view = third[5:].view(-1)  # no memory of its own
        first.add_(1)
    assert peak(live.changes) == 12 * KIB
    del first
    assert live.live == 2 * KIB
    del third
    assert live.live == 2 * KIB
    del view
    assert live.live == 0


def test_what_was_there_before_is_not_counted() -> None:
    before = floats(8)
    with LiveBytes(limit=LARGE) as live:
        assert before[2:].t().shape
        before.mul_(2)
    assert peak(live.changes) == 0


def test_sparse_gradients_count_by_their_rows() -> None:
    table = nn.Embedding(1000, 256, sparse=True)
    with LiveBytes(limit=LARGE) as live:
        table(torch.arange(8)).sum().backward()
    assert 8 * KIB <= peak(live.changes) <= 40 * KIB


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(MemoryError), LiveBytes(limit=10 * KIB):
        assert [floats(4) for _ in range(3)]


def test_large_tensors_are_not_filled() -> None:
    with Unfilled():
        table, small = nn.Embedding(LARGE // 2, 2), nn.Embedding(LARGE // 4, 2)
        drawn = torch.randn(3, 4)
    assert table.weight.shape == (LARGE // 2, 2)
    assert small.weight.std().item() == pytest.approx(1.0, abs=0.05)
    assert drawn.shape == (3, 4)
    assert nn.Embedding(LARGE // 2, 2).weight.std().item() == pytest.approx(1.0, abs=0.05)
