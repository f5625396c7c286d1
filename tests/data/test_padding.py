"""Histories with their padding on the other side."""

from __future__ import annotations

import torch

from grbench.data.padding import padding_first, padding_last

ITEMS = torch.tensor([[0, 0, 5, 6], [1, 2, 3, 4], [0, 0, 0, 0], [0, 0, 0, 9]])


def test_histories_begin_in_column_0() -> None:
    assert padding_last(ITEMS, ITEMS).tolist() == [[5, 6, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0], [9, 0, 0, 0]]


def test_what_is_computed_there_comes_back_to_its_events() -> None:
    vectors = torch.arange(4 * 4 * 2).reshape(4, 4, 2)
    turned = padding_last(vectors, ITEMS)
    assert turned[0, :2].equal(vectors[0, 2:])
    assert padding_first(turned, ITEMS).equal(vectors)


def test_a_gru_over_them_gives_the_states_of_each_history_alone() -> None:
    table, gru = torch.nn.Embedding(10, 3, padding_idx=0), torch.nn.GRU(3, 3, batch_first=True)
    states = padding_first(gru(padding_last(table(ITEMS), ITEMS))[0], ITEMS)
    alone = gru(table(ITEMS[:1, 2:]))[0]
    torch.testing.assert_close(states[0, 2:], alone[0])
