"""Packed and unpacked layouts hold the same tokens at the same places."""

import pytest
import torch
from worlds import batch_of

from grbench_reference.layers.token_packing import lay_out

BATCH = batch_of([7, 8], [], [1, 2, 3], [9], length=3)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("user_token", [True, False])
def test_tokens_come_back_where_they_were(packed, user_token):
    layout = lay_out(BATCH, user_token=user_token, packed=packed)
    of_users = torch.tensor([11, 12, 13, 14])
    vectors = layout.take(BATCH.items, of_users).unsqueeze(1).float() * torch.tensor([1.0, 10.0])
    grid = layout.to_batch(vectors)
    expected = torch.cat([of_users.unsqueeze(1), BATCH.items], 1) if user_token else BATCH.items
    assert torch.equal(grid[..., 0].long(), expected)
    assert torch.equal(grid[..., 1].long(), expected * 10)
    if user_token:
        assert not layout.take(BATCH.items)[layout.first].any()


@pytest.mark.parametrize("packed", [True, False])
def test_places_count_from_the_first_token(packed):
    layout = lay_out(BATCH, user_token=True, packed=packed)
    places = {
        (int(layout.row[token]), int(layout.take(BATCH.items)[token])): int(layout.place[token])
        for token in torch.nonzero(layout.events >= 0).flatten().tolist()
    }
    assert places == {(0, 7): 1, (0, 8): 2, (2, 1): 1, (2, 2): 2, (2, 3): 3, (3, 9): 1}
    assert torch.equal(layout.place[layout.first], torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("user_token", "newest"), [(True, [8, 0, 3, 9]), (False, [8, -1, 3, 9])])
def test_newest(packed, user_token, newest):
    layout = lay_out(BATCH, user_token=user_token, packed=packed)
    items = layout.take(BATCH.items)
    assert [int(items[token]) if token >= 0 else -1 for token in layout.last] == newest


def test_groups_hold_every_token_once():
    layout = lay_out(BATCH, user_token=False, packed=True)
    tokens = torch.arange(1, 7).float().unsqueeze(1)
    back = torch.cat([group.tokens(group.grid(tokens)) for group in layout.groups])
    assert torch.equal(back, tokens)
    for group in layout.groups:  # left-aligned: nothing real stands behind an empty cell
        filled = group.grid(tokens).squeeze(-1) > 0
        assert torch.equal(filled, filled.int().cummin(1).values.bool())


def test_an_item_zero_inside_a_history_moves_no_position():
    batch = batch_of([5, 0, 6], length=4, targets=[[0, 0, 0]])
    layout = lay_out(batch, user_token=False, packed=True)
    assert layout.place.tolist() == [0, 1, 2]
