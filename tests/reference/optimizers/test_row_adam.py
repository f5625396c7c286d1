"""RowAdam gives torch's numbers, however the rows are cut into blocks."""

import copy

import pytest
import torch
from torch import nn

from grbench_reference.optimizers import row_adam
from grbench_reference.optimizers.row_adam import RowAdam

ON_GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
)


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
@pytest.mark.parametrize("block", [1, 6, 1 << 18])  # values: one row, two rows, all at once
def test_equals_torch(monkeypatch, block, device):
    monkeypatch.setattr(row_adam, "BLOCK", block)
    start = torch.randn(7, 3, device=device)
    tables = [nn.Embedding.from_pretrained(start.clone(), freeze=False, sparse=True) for _ in range(2)]
    kinds = (torch.optim.SparseAdam, RowAdam)
    settings = {"lr": 0.1, "betas": (0.8, 0.98), "eps": 1e-3}
    optimizers = [kind(table.parameters(), **settings) for kind, table in zip(kinds, tables, strict=True)]
    for step, rows in enumerate([[1, 1, 6], [0, 2, 6], [6, 1, 1], [3]]):  # a row twice; rows left out for a while
        for table, optimizer in zip(tables, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimizer.zero_grad()
            table(torch.tensor(rows, device=device)).pow(3).sum().backward()
            optimizer.step()
        torch.testing.assert_close(tables[1].weight, tables[0].weight)
    assert torch.equal(tables[1].weight[[4, 5]], start[[4, 5]])


def test_goes_on_from_a_saved_state():
    table = nn.Embedding(4, 2, sparse=True)
    other = nn.Embedding(4, 2, sparse=True)
    first, second = (RowAdam(each.parameters(), lr=0.1) for each in (table, other))

    def learn(optimizer, each):
        optimizer.zero_grad()
        each(torch.tensor([1, 3])).pow(2).sum().backward()
        optimizer.step()

    learn(first, table)
    other.load_state_dict(table.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    learn(first, table)
    learn(second, other)
    assert torch.equal(table.weight, other.weight)


def test_a_dense_gradient_is_refused():
    table = nn.Embedding(4, 2)
    optimizer = RowAdam(table.parameters(), lr=0.1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse gradients"):
        optimizer.step()
