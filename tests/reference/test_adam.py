"""Which parameter gets which optimizer."""

import torch
from torch import nn

from grbench_reference.optimizers.adam import adam, adamw


def module(sparse):
    return nn.ModuleDict(
        {"table": nn.Embedding(5, 2, sparse=sparse), "linear": nn.Linear(2, 1), "norm": nn.LayerNorm(2)}
    )


def test_dense_only():
    (optimizer,) = adam(module(False), lr=0.1, beta2=0.98)
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["betas"] == (0.9, 0.98)
    assert len(optimizer.param_groups[0]["params"]) == 5


def test_sparse_tables_get_sparse_adam():
    model = module(True)
    dense, sparse = adam(model, lr=0.1)
    assert [id(p) for p in sparse.param_groups[0]["params"]] == [id(model["table"].weight)]
    assert isinstance(sparse, torch.optim.SparseAdam)
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
    assert all(p is not model["table"].weight for p in optimizer.param_groups[0]["params"])
