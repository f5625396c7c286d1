"""Row-wise Adagrad by hand, against torch's Adagrad where a row is one number, and sparse against dense."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from grbench_reference.optimizers.rowwise_adagrad import RowwiseAdagrad


def table(sparse=False):
    return nn.Embedding.from_pretrained(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), freeze=False, sparse=sparse)


@pytest.mark.parametrize("sparse", [False, True])
def test_by_hand(sparse):
    """Row 1's gradient is (3, 4), then (6, 8): means of squares 12.5 and 50, so 62.5 in all. Rows 0 and 2 rest."""
    model = table(sparse)
    optimizer = RowwiseAdagrad(model.parameters(), lr=0.1)
    expected = torch.tensor([3.0, 4.0])
    for factor, root in ((1, 12.5**0.5), (2, 62.5**0.5)):
        optimizer.zero_grad()
        (model(torch.tensor([1])) * torch.tensor([3.0, 4.0]) * factor).sum().backward()
        assert model.weight.grad.is_sparse is sparse
        optimizer.step()
        expected = expected - 0.1 * factor * torch.tensor([3.0, 4.0]) / root
        left, _, right = table().weight.detach()
        torch.testing.assert_close(model.weight.detach(), torch.stack([left, expected, right]))
    torch.testing.assert_close(optimizer.state[model.weight]["sum"], torch.tensor([0.0, 62.5, 0.0]))


def test_a_row_asked_for_twice_is_one_row():
    """Gradients 1 and 3 of one number add up to 4 before they are squared: 2 - 0.5 * 4 / sqrt(16)."""
    model = nn.Embedding.from_pretrained(torch.tensor([[0.0], [2.0]]), freeze=False, sparse=True)
    optimizer = RowwiseAdagrad(model.parameters(), lr=0.5)
    (model(torch.tensor([1, 1])) * torch.tensor([[1.0], [3.0]])).sum().backward()
    optimizer.step()
    assert model.weight.flatten().tolist() == pytest.approx([0.0, 1.5])


def test_width_one_is_adagrad():
    torch.manual_seed(0)
    models = [nn.Embedding(4, 1) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [RowwiseAdagrad(models[0].parameters(), lr=0.3), torch.optim.Adagrad(models[1].parameters(), lr=0.3)]
    for step in range(4):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            (model(torch.tensor([0, 2, step % 4])) - 1).pow(2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(models[0].weight, models[1].weight)


def test_sparse_equals_dense_whatever_is_touched():
    torch.manual_seed(0)
    models = [nn.Embedding(6, 3, sparse=sparse) for sparse in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [RowwiseAdagrad(model.parameters(), lr=0.1) for model in models]
    schedules = [LambdaLR(optimizer, lambda update: 1 / (update + 1)) for optimizer in optimizers]
    for rows in ([0, 1, 1], [5, 1], [2]):
        for model, optimizer, schedule in zip(models, optimizers, schedules, strict=True):
            optimizer.zero_grad()
            model(torch.tensor(rows)).pow(2).sum().backward()
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(models[0].weight, models[1].weight)
    assert optimizers[1].state[models[1].weight]["sum"].shape == (6,)
    again = RowwiseAdagrad(models[1].parameters(), lr=0.1)
    again.load_state_dict(optimizers[1].state_dict())
    torch.testing.assert_close(again.state[models[1].weight]["sum"], optimizers[1].state[models[1].weight]["sum"])


def test_only_tables():
    with pytest.raises(ValueError, match="tables"):
        RowwiseAdagrad([nn.Parameter(torch.zeros(3))])
