"""Feature fusion against hand-made answers: padding, missing, unknown, multi-value, embeddings, cold items."""

import numpy as np
import pytest
import torch
from worlds import NAN, everything, featured, training_data

from grbench.errors import SuiteError
from grbench.testing import tiny_store
from grbench_reference.features.fusion import (
    FusionOptions,
    ItemFeatureOptions,
    UserFeatureOptions,
    item_tower,
    user_tower,
)
from grbench_reference.features.parts import ContentEmbedding, FusedFields, IdEmbedding


def fused(data, names=None, **options):
    table = data.catalogue.item_features
    fields = [field for field in table.fields if names is None or field.name in names]
    return FusedFields(table, fields, data.item_counts() > 0, width=2, **options).eval()


def test_padding_missing_and_unknown_are_three_rows(tmp_path):
    part = fused(featured(tmp_path), ["color"])
    # item 3: missing; item 5 has color 2, which no trained item has: unknown; item 6 is cold, but its color 0 is known
    rows = part.rows(torch.arange(7)).squeeze(1)
    padding, one, two, three, four, five, six = rows.tolist()
    assert padding == 0
    assert one == six
    assert two == four
    assert len({padding, one, two, three, five}) == 5
    assert five == int(part.unknown)
    assert torch.equal(part(torch.tensor([0])), torch.zeros(1, 2))
    assert torch.equal(part(torch.tensor([5])), torch.zeros(1, 2)), "untaught, an unknown value says nothing"
    assert part(torch.tensor([3])).abs().sum() > 0


def test_values_of_different_fields_never_share_a_row(tmp_path):
    part = fused(featured(tmp_path))
    rows = part.rows(torch.arange(1, 7))
    assert set(rows[:, 0].tolist()).isdisjoint(rows[:, 1:].flatten().tolist())


@pytest.mark.parametrize(("pooling", "divisor"), [("mean", 2), ("sum", 1)])
def test_multi_value_fields_leave_padding_out(tmp_path, pooling, divisor):
    part = fused(featured(tmp_path), ["tags"], pooling=pooling)
    weight = part.table.weight
    rows = part.rows(torch.tensor([1, 2]))
    assert rows[1, 1] == 0
    expected = torch.stack([(weight[rows[0, 0]] + weight[rows[0, 1]]) / divisor, weight[rows[1, 0]]])
    torch.testing.assert_close(part(torch.tensor([1, 2])), expected)


@pytest.mark.parametrize("names", [["color"], ["tags"], None])
@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("sparse", [False, True])
def test_projecting_rows_equals_projecting_entities(tmp_path, names, pooling, sparse):
    """The CPU's short way (each distinct row multiplied once) equals the plain one, values and gradients."""
    part = fused(featured(tmp_path), names, pooling=pooling, sparse=sparse)
    weight = torch.randn(5, part.output_width, requires_grad=True)
    items = torch.tensor([0, 1, 2, 3, 5, 6, 1])
    upstream = torch.randn(7, 5)
    results = []
    for project in (part.project, super(FusedFields, part).project):
        vectors = project(items, weight)
        grads = torch.autograd.grad((vectors * upstream).sum(), [part.table.weight, weight])
        results.append([vectors, *(grad.to_dense() for grad in grads)])
    for short, plain in zip(*results, strict=True):
        torch.testing.assert_close(short, plain)


def test_items_without_training_event_share_the_unknown_id(tmp_path):
    part = IdEmbedding(featured(tmp_path).item_counts() > 0, width=2)
    vectors = part(torch.arange(7))
    assert torch.equal(vectors[5], vectors[6])
    assert torch.equal(vectors[0], torch.zeros(2))
    assert len({tuple(vector.tolist()) for vector in vectors[1:5]}) == 4


def test_id_dropout_teaches_the_unknown_row_in_training_only(tmp_path):
    part = IdEmbedding(featured(tmp_path).item_counts() > 0, width=2, dropout=0.5)
    torch.manual_seed(0)
    part(torch.arange(1, 5).repeat(20)).sum().backward()
    assert part.table.weight.grad[1, 0] > 10
    assert part.table.weight.grad[0, 0] == 0
    part.zero_grad()
    part.eval()(torch.arange(1, 5)).sum().backward()
    assert part.table.weight.grad[1, 0] == 0


def test_field_dropout_hides_values_but_neither_padding_nor_missing(tmp_path):
    part = fused(featured(tmp_path), ["color"], dropout=0.999).train()
    torch.manual_seed(0)
    plain = fused(featured(tmp_path), ["color"]).rows(torch.arange(7))
    rows = part.rows(torch.arange(7))
    assert rows[0] == 0
    assert rows[3] == plain[3]
    assert (rows[[1, 2, 4, 6]] == part.unknown).all()


def test_missing_vectors_are_learnt(tmp_path):
    part = ContentEmbedding(featured(tmp_path).catalogue.embeddings["81"])
    vectors = part(torch.tensor([1, 3, 4, 6]))
    assert vectors[0].tolist() == [1, 0]
    assert vectors[2].tolist() == [0.5, 0.5]
    torch.testing.assert_close(vectors[1], part.missing)
    vectors.sum().backward()
    assert part.missing.grad.tolist() == [2, 2]


def test_tables_have_a_fixed_spread():
    for rows in (1_000, 50_000):
        part = IdEmbedding(np.ones(rows, bool), width=16)
        assert part.table.weight[2:].std().item() == pytest.approx(0.02, rel=0.05)


def test_a_tower_without_features_is_the_id_table(tmp_path):
    data = training_data(tmp_path, [[(1, 0, 1), (2, 0, 2)], [(3, 0, 1)]], num_items=4)
    tower = item_tower(data, width=3)
    assert [name for name, _ in tower.named_parameters()] == ["parts.0.table.weight"]
    vectors = tower(torch.tensor([[0, 1], [2, 4]]))
    assert vectors.shape == (2, 2, 3)
    torch.testing.assert_close(vectors[0, 1], tower.parts[0].table.weight[2])


def test_a_tower_is_the_mlp_of_the_concatenation(tmp_path):
    """Equation 3, worked out plainly."""
    tower = item_tower(featured(tmp_path), fusion=FusionOptions(id_width=3, field_width=2), width=4)
    items = torch.tensor([1, 5, 3])
    parts = torch.cat([part(items) for part in tower.parts], dim=1)
    assert parts.shape == (3, 3 + 2 * 2 + 2)
    torch.testing.assert_close(tower(items), tower.rest(tower.first(parts)))
    assert isinstance(tower.rest[-1], torch.nn.Linear)
    assert torch.equal(tower(torch.tensor([0])), torch.zeros(1, 4))


def test_each_once_equals_embedding_each(tmp_path):
    tower = item_tower(featured(tmp_path), width=4)
    history, asked = torch.tensor([[0, 1], [2, 1]]), torch.tensor([6, 1, 3])
    for fast, plain in zip(tower.each_once(history, asked), (tower(history), tower(asked)), strict=True):
        torch.testing.assert_close(fast, plain)


def test_candidates_stream_in_pieces(tmp_path, monkeypatch):
    tower = item_tower(featured(tmp_path), width=4)
    whole = tower(torch.arange(1, 7))
    monkeypatch.setattr("grbench_reference.features.fusion.ROWS_AT_ONCE", 4)
    with torch.no_grad():
        torch.testing.assert_close(tower(torch.arange(1, 7)), whole)


def test_values_are_learnt_from_training_users_only(tmp_path):
    """User 0's items and profile are unknown where only the others train."""
    data = featured(tmp_path, users=[1, 3])
    assert item_tower(data, width=2).parts[0](torch.tensor([1])).abs().sum() == 0
    users = user_tower(data, width=2)
    ages = users.parts[0].rows(torch.arange(4)).squeeze(1).tolist()
    assert ages[0] == ages[3]  # age 1 is known from user 3
    assert len({*ages}) == 3


def test_users_have_rows_of_their_own_and_untrained_ones_share_one(tmp_path):
    data = featured(tmp_path, users=[0, 1])
    only_id = UserFeatureOptions(user_features=False, user_id=True)
    alone = user_tower(data, only_id, FusionOptions(id_dropout=0.5), width=2).eval()
    vectors = alone(torch.arange(4))
    assert torch.equal(vectors[2:], torch.zeros(2, 2)), "untaught, an unknown user says nothing"
    assert (vectors[:2] != 0).all(), "user 0 is a user, not padding"
    assert not torch.equal(vectors[0], vectors[1])
    torch.manual_seed(0)
    alone.train()(torch.zeros(99, dtype=torch.long)).sum().backward()
    hidden, known = alone.parts[0].table.weight.grad[1:3, 0].tolist()
    assert hidden + known == 99
    assert 30 < hidden < 70
    with_id = UserFeatureOptions(user_id=True)
    beside = user_tower(data, with_id, FusionOptions(id_width=3), width=4)
    assert beside.widths == [3, 4]
    assert user_tower(data, with_id, FusionOptions(id_width=0), width=4).widths == [4, 4]


def test_fields_and_embeddings_by_name(tmp_path):
    data = featured(tmp_path)
    nothing = ItemFeatureOptions(item_features=False, embeddings="none")
    tower = item_tower(data, ItemFeatureOptions(item_features=["color"], embeddings=[81]), width=2)
    assert [part.output_width for part in tower.parts] == [2, 2, 2]
    assert len(item_tower(data, nothing, width=2).parts) == 1
    with pytest.raises(SuiteError, match=r"item_features: no feature 'colour'.*it has color, tags"):
        item_tower(data, ItemFeatureOptions(item_features=["colour"]), width=2)
    with pytest.raises(SuiteError, match=r"no embedding '82'.*it has 81"):
        item_tower(data, ItemFeatureOptions(embeddings=[82]), width=2)
    assert item_tower(data, nothing, FusionOptions(id_width=0), width=2) is None


def test_no_user_features_no_user_tower(tmp_path):
    assert user_tower(training_data(tmp_path, [[(1, 0, 1), (2, 0, 2)]]), width=2) is None
    assert user_tower(featured(tmp_path / "b"), UserFeatureOptions(user_features=False), width=2) is None


def test_catalogue_is_not_copied(tmp_path):
    store = tiny_store(tmp_path, [[(1, 0, 1), (2, 0, 2)]], embeddings={"81": np.array([[1.0], [NAN]])})
    part = ContentEmbedding(store.catalogue.embeddings["81"])
    assert part.values.data_ptr() == everything(store).catalogue.embeddings["81"].values.ctypes.data
    assert "values" not in part.state_dict()
