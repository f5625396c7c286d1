"""Hashed item ids: who shares a row with whom, and who has none."""

import numpy as np
import pytest
import torch
from worlds import featured

from grbench.errors import SuiteError
from grbench_reference.features.fusion import FusionOptions, ItemFeatureOptions, item_tower
from grbench_reference.features.hashed_ids import HashedIds
from grbench_reference.features.parts import IdEmbedding

TRAINED = np.array([False, True, True, True, True, True, True, False])  # items 1 .. 6 of 7


def test_items_share_rows_by_their_number_modulo_rows():
    part = HashedIds(TRAINED, [2, 3], width=2)
    vectors = part(torch.arange(8))
    assert part.output_width == 4
    first, second = vectors.split(2, dim=1)
    assert torch.equal(first[1], first[3])
    assert torch.equal(first[2], first[6])
    assert torch.equal(second[1], second[4])
    assert not torch.equal(first[1], first[2])
    together = {tuple(vector.tolist()) for vector in vectors[1:7]}
    assert len(together) == 6, "two tables without a common divisor tell 2 x 3 items apart"


def test_items_without_training_event_are_unknown_and_say_nothing_untaught():
    part = HashedIds(TRAINED, [2, 3], width=2, id_width=1)
    assert torch.equal(part(torch.tensor([0, 7])), torch.zeros(2, 5))
    part(torch.tensor([0, 7, 7])).sum().backward()
    for table in (part.own, *part.tables):
        assert table.weight.grad[0].sum() == 0
        assert table.weight.grad[1, 0] == 2
        assert table.weight.grad[2:].abs().sum() == 0


def test_an_item_hidden_is_hidden_in_every_table():
    part = HashedIds(np.ones(1000, bool), [7, 11], width=1, id_width=1, dropout=0.5)
    torch.manual_seed(0)
    hidden = part(torch.arange(1, 1000)) == 0
    assert torch.equal(hidden.any(1), hidden.all(1))
    assert 400 < hidden.all(1).sum() < 600
    assert not (part.eval()(torch.arange(1, 1000)) == 0).any()


@pytest.mark.parametrize("id_width", [0, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_projecting_table_by_table_equals_projecting_the_whole(id_width, sparse):
    part = HashedIds(TRAINED, [2, 3], width=2, id_width=id_width, sparse=sparse)
    weight = torch.randn(5, part.output_width, requires_grad=True)
    items, upstream = torch.tensor([0, 1, 4, 7, 4]), torch.randn(5, 5)
    results = []
    for project in (part.project, super(HashedIds, part).project):
        vectors = project(items, weight)
        grads = torch.autograd.grad((vectors * upstream).sum(), [weight, *part.parameters()])
        assert all(grad.is_sparse == sparse for grad in grads[1:])
        results.append([vectors, *(grad.to_dense() for grad in grads)])
    for short, plain in zip(*results, strict=True):
        torch.testing.assert_close(short, plain)


def test_tables_that_confuse_the_same_items_are_refused():
    with pytest.raises(SuiteError, match=r"hashed_ids: 6 and 4 rows share the divisor 2"):
        HashedIds(TRAINED, [6, 4], width=2)


def test_towers_have_them_beside_the_id_or_in_its_place(tmp_path):
    data = featured(tmp_path)
    items = ItemFeatureOptions(item_features=False, embeddings="none", hashed_ids=(2, 3), hashed_width=5)
    beside = item_tower(data, items, FusionOptions(id_width=3), width=4)
    assert beside.widths == [3 + 2 * 5]
    items = ItemFeatureOptions(item_features=False, embeddings="none", hashed_ids=(2, 3))
    instead = item_tower(data, items, FusionOptions(id_width=0), width=4)
    assert instead.widths == [2 * 4]
    assert instead(torch.arange(7)).shape == (7, 4)
    assert not any(isinstance(part, IdEmbedding) for part in beside.parts)
