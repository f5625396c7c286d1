"""Which parameter gets which optimizer."""

import pytest
import torch
from torch import nn

from grbench.errors import SuiteError
from grbench_reference.optimizers.adam import adam, adamw
from grbench_reference.optimizers.row_adam import RowAdam
from grbench_reference.optimizers.rowwise_adagrad import RowwiseAdagrad


def module(sparse):
    return nn.ModuleDict(
        {"table": nn.Embedding(5, 2, sparse=sparse), "linear": nn.Linear(2, 1), "norm": nn.LayerNorm(2)}
    )


def test_dense_only():
    (optimizer,) = adam(module(False), lr=0.1, beta2=0.98)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}  # without decay it is Adam
    assert optimizer.defaults["betas"] == (0.9, 0.98)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


def test_adam_is_torchs():
    torch.manual_seed(0)
    ours, theirs = module(False), module(False)
    theirs.load_state_dict(ours.state_dict())
    (optimizer,) = adam(ours, lr=0.1, beta2=0.98)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.1, betas=(0.9, 0.98))
    for model, updates in ((ours, optimizer), (theirs, reference)):
        for _ in range(3):
            updates.zero_grad()
            (model["linear"](model["table"].weight) * model["norm"].weight + model["norm"].bias).pow(2).sum().backward()
            updates.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_sparse_tables_get_row_adam():
    model = module(True)
    dense, sparse = adam(model, lr=0.1)
    assert [id(p) for p in sparse.param_groups[0]["params"]] == [id(model["table"].weight)]
    assert isinstance(sparse, RowAdam)
    before = model["table"].weight.detach().clone()
    model["linear"](model["table"](torch.tensor([1, 1, 3]))).sum().backward()
    dense.step()
    sparse.step()
    moved = (model["table"].weight.detach() - before).abs().sum(1) > 0
    assert moved.tolist() == [False, True, False, True, False]


def test_sparse_equals_dense_on_rows_met_every_step():
    torch.manual_seed(0)
    models = [nn.Embedding(3, 2, sparse=sparse) for sparse in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        (optimizer,) = adam(model, lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.tensor([0, 1, 2])).pow(2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(models[0].weight, models[1].weight)


def test_weight_decay_spares_vectors_and_tables():
    model = module(False)
    (optimizer,) = adamw(model, weight_decay=0.1, table_weight_decay=0.2)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays[id(model["linear"].weight)] == 0.1
    assert decays[id(model["table"].weight)] == 0.2
    assert decays[id(model["linear"].bias)] == decays[id(model["norm"].weight)] == 0.0


def test_frozen_parameters_are_left_out():
    model = module(False)
    model["table"].weight.requires_grad_(False)
    (optimizer,) = adam(model)
    assert all(p is not model["table"].weight for group in optimizer.param_groups for p in group["params"])


@pytest.mark.parametrize("factory", [adam, adamw])
@pytest.mark.parametrize("sparse", [False, True])
def test_tables_by_rows(factory, sparse):
    model = module(sparse)
    dense, tables = factory(model, lr=0.1, tables="rowwise_adagrad", table_lr=0.3)
    assert isinstance(tables, RowwiseAdagrad)
    assert [id(p) for group in tables.param_groups for p in group["params"]] == [id(model["table"].weight)]
    assert tables.param_groups[0]["lr"] == 0.3
    assert sum(len(group["params"]) for group in dense.param_groups) == 4
    assert {group["lr"] for group in dense.param_groups} == {0.1}


@pytest.mark.parametrize("sparse", [False, True])
def test_tables_at_their_own_rate(sparse):
    model = module(sparse)
    optimizers = adam(model, lr=0.1, table_lr=0.3)
    rates = {id(p): group["lr"] for each in optimizers for group in each.param_groups for p in group["params"]}
    assert rates[id(model["table"].weight)] == 0.3
    assert rates[id(model["linear"].weight)] == 0.1


def test_rows_do_not_decay():
    with pytest.raises(SuiteError, match=r"optimizer\.table_weight_decay: 0\.1.*do not decay"):
        adamw(module(False), tables="rowwise_adagrad", table_weight_decay=0.1)
