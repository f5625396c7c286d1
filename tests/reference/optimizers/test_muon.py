"""What Muon updates, and what it leaves to AdamW; its update by the singular values that it should have."""

import pytest
import torch
from code_worlds import codes_of, decoder, world
from torch import nn

from grbench_reference.features.parts import EmbeddingTable
from grbench_reference.optimizers.muon import muon
from grbench_reference.optimizers.row_adam import RowAdam
from grbench_reference.optimizers.rowwise_adagrad import RowwiseAdagrad


class Mixed(nn.Module):
    """A table, a linear map, a norm, a stack of experts and a matrix that is looked up."""

    def __init__(self, sparse=False):
        super().__init__()
        self.table = nn.Embedding(5, 3, sparse=sparse)
        self.linear = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.experts = nn.Parameter(torch.randn(2, 3, 3))
        self.level = nn.Parameter(torch.randn(2, 3))


def owners(optimizers):
    return {
        id(parameter): (type(each), group["lr"], group.get("weight_decay"))
        for each in optimizers
        for group in each.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("sparse", [False, True])
def test_who_updates_what(sparse):
    model = Mixed(sparse)
    owner = owners(muon(model))
    assert len(owner) == len(list(model.parameters()))
    assert owner[id(model.linear.weight)] == (torch.optim.Muon, 0.02, 1e-5)
    for matrix in (model.experts, model.level):
        assert owner[id(matrix)] == (torch.optim.AdamW, 4e-3, 1e-5)
    for vector in (model.linear.bias, model.norm.weight, model.norm.bias):
        assert owner[id(vector)] == (torch.optim.AdamW, 4e-3, 0.0)
    table = (RowAdam, 4e-3, None) if sparse else (torch.optim.AdamW, 4e-3, 0.0)
    assert owner[id(model.table.weight)] == table


def test_tables_by_rows_at_their_own_rate():
    model = Mixed(sparse=True)
    owner = owners(muon(model, tables="rowwise_adagrad", table_lr=0.01))
    assert owner[id(model.table.weight)] == (RowwiseAdagrad, 0.01, None)


def test_every_parameter_of_a_decoder_has_one_owner(tmp_path):
    data = world(tmp_path)
    model = decoder(data, codes_of(data), experts=2, active_experts=1, item_features=True)
    owner = owners(muon(model))
    assert len(owner) == sum(len(group["params"]) for each in muon(model) for group in each.param_groups)
    assert set(owner) == {id(parameter) for parameter in model.parameters()}
    for module in model.modules():
        if isinstance(module, EmbeddingTable):
            assert owner[id(module.weight)][0] is torch.optim.AdamW


def test_the_first_update_is_orthogonal():
    """All singular values of it come near lr * sqrt(rows / columns), however different the gradient's are."""
    torch.manual_seed(0)
    linear = nn.Linear(16, 64, bias=False)
    before = linear.weight.detach().clone()
    (optimizer,) = muon(linear, lr=0.1, weight_decay=0.0)
    linear.weight.grad = torch.randn(64, 16) * torch.logspace(-1, 1, 16)
    optimizer.step()
    values = torch.linalg.svdvals(before - linear.weight.detach()) / (0.1 * 2)
    assert values.min() > 0.5
    assert values.max() < 1.3
