"""Each fast operation against torch's own."""

import pytest
import torch
from torch.nn import functional

from grbench_reference.kernels.embedding import distinct, distinct_rows, dropout, gather_rows, sum_rows, unit


@pytest.fixture
def table():
    return torch.randn(7, 3, dtype=torch.float32, generator=torch.Generator().manual_seed(0)).requires_grad_()


def gradient(value, table):
    weights = torch.arange(1.0, value.numel() + 1).view(value.shape)
    return torch.autograd.grad((value * weights).sum(), table)[0]


def test_sum_rows_equals_gathering_and_adding(table):
    rows = torch.tensor([[0, 1], [1, 1], [6, 2], [6, 0]])
    fast, plain = sum_rows(table, rows), table[rows].sum(1)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(gradient(fast, table), gradient(plain, table))


def test_sum_rows_with_weights(table):
    rows, weights = torch.tensor([[0, 1], [1, 3], [3, 3]]), torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    fast, plain = sum_rows(table, rows, weights), (table[rows] * weights[..., None]).sum(1)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(gradient(fast, table), gradient(plain, table))


def test_sum_rows_leaves_padding_alone(table):
    rows = torch.tensor([[0, 1], [1, 1], [0, 0]])
    fast, plain = sum_rows(table, rows, padding=0), functional.embedding(rows, table, padding_idx=0).sum(1)
    torch.testing.assert_close(fast, plain)
    found = gradient(fast, table)
    torch.testing.assert_close(found, gradient(plain, table))
    assert (found[0] == 0).all()


@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_gather_rows_equals_embedding(table, shape):
    rows = torch.tensor([4, 0, 4, 2, 6, 0]).view(shape)
    fast, plain = gather_rows(table, rows, padding=0), functional.embedding(rows, table, padding_idx=0)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(gradient(fast, table), gradient(plain, table))


def test_gather_rows_of_nothing(table):
    gathered = gather_rows(table, torch.empty(0, dtype=torch.int64))
    assert gathered.shape == (0, 3)
    assert torch.equal(gradient(gathered, table), torch.zeros_like(table))


@pytest.mark.parametrize("sparse", [False, True])
def test_distinct_rows(table, sparse):
    rows = torch.tensor([0, 2, 5])
    found = gradient(distinct_rows(table, rows, sparse=sparse, padding=0), table)
    assert found.is_sparse == sparse
    assert not sparse or found.is_coalesced()
    expected = torch.zeros(7, 3)
    expected[2], expected[5] = torch.tensor([4.0, 5, 6]), torch.tensor([7.0, 8, 9])
    assert torch.equal(found.to_dense(), expected)


@pytest.mark.parametrize("count", [7, 1000])  # a map of flags; a catalogue much larger than what is met
def test_distinct_equals_unique(count):
    rows = torch.tensor([[5, 1, 5], [0, 1, 3]])
    met, where = distinct(rows, count)
    expected, inverse = torch.unique(rows, return_inverse=True)
    assert torch.equal(met, expected)
    assert torch.equal(where, inverse)


def test_unit_equals_normalize(table):
    plain, fast = functional.normalize(table, dim=-1), unit(table)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(gradient(fast, table), gradient(plain, table))
    zero = torch.zeros(1, 3, requires_grad=True)
    assert torch.equal(unit(zero), torch.zeros(1, 3))
    assert torch.isfinite(gradient(unit(zero), zero)).all()


def test_dropout_keeps_the_mean_and_the_share():
    torch.manual_seed(0)
    values = torch.ones(1000, 1000)
    dropped = dropout(values, 0.2, training=True)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.002)
    assert dropped.mean().item() == pytest.approx(1, abs=0.003)
    assert dropped.max().item() == pytest.approx(1.25, abs=1e-4)
    columns = (dropped == 0).float().mean(0)  # no lane of the random words is biased
    assert columns.min() > 0.13
    assert columns.max() < 0.27


def test_dropout_does_nothing_at_test():
    values = torch.ones(5)
    assert dropout(values, 0.5, training=False) is values
    assert dropout(values, 0.0, training=True) is values
