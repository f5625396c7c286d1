"""Gradients of the ranks' parts of a batch, averaged, so that every rank makes the same update.

Shapes: K rows that a rank's part has touched, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.sparse import Embedding, EmbeddingBag

from grbench.distributed.ranks import Ranks
from grbench.distributed.row_table import divided_weights

LARGEST_BUCKET = 1 << 24
"""Numbers that are exchanged at once."""


def average_gradients(module: nn.Module, ranks: Ranks) -> None:
    """Replaces the gradients of all parameters by their means over the ranks. A rank without a gradient counts as one
    with zeros; where none has one, none gets one."""
    if ranks.alone:
        return
    divided = set(divided_weights(module))  # whose owners have got all ranks' gradients by the backward pass
    learnt = [each for each in module.parameters() if each.requires_grad and each not in divided]
    bags = [child for child in module.modules() if isinstance(child, Embedding | EmbeddingBag) and child.sparse]
    sparse = {bag.weight for bag in bags} - divided
    for bucket in _buckets([parameter for parameter in learnt if parameter not in sparse]):
        _average(bucket, ranks)
    for parameter in (each for each in learnt if each in sparse):
        _average_rows(parameter, ranks)


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters in order, those of one type and device together as far as they fit."""
    buckets: list[list[nn.Parameter]] = []
    kind, size = None, 0
    for parameter in parameters:
        size += parameter.numel()
        if kind != (parameter.dtype, parameter.device) or size > LARGEST_BUCKET:
            kind, size = (parameter.dtype, parameter.device), parameter.numel()
            buckets.append([])
        buckets[-1].append(parameter)
    return buckets


def _average(bucket: Sequence[nn.Parameter], ranks: Ranks) -> None:
    """One exchange of all gradients, behind which each parameter says whether it has one."""
    zeros = bucket[0].new_zeros
    pieces = [zeros(each.numel()) if each.grad is None else each.grad.reshape(-1) for each in bucket]
    present = torch.tensor([float(each.grad is not None) for each in bucket], dtype=bucket[0].dtype)
    flat = torch.cat([*pieces, present.to(bucket[0].device)])
    ranks.average(flat)
    means = torch.split(flat, [*(each.numel() for each in bucket), len(bucket)])
    if any(each.grad is None for each in bucket):  # only then the device is waited for
        present = means[-1].cpu()
    for parameter, mean, there in zip(bucket, means[:-1], present.tolist(), strict=True):
        if parameter.grad is not None:
            parameter.grad.copy_(mean.view_as(parameter))
        elif there:
            parameter.grad = mean.view_as(parameter).clone()


def _average_rows(table: nn.Parameter, ranks: Ranks) -> None:
    """The same of a table whose gradient is sparse: the rows that any rank has touched."""
    rows, values = _rows_of(table)
    there = ranks.total(torch.tensor(float(table.grad is not None)))
    rows, values = ranks.concatenated(rows), ranks.concatenated(values)
    if there:
        mean = torch.sparse_coo_tensor(rows[None], values / ranks.size, table.shape, check_invariants=False)
        table.grad = mean.coalesce()


def _rows_of(table: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Rows [K] and values [K, W] of a sparse gradient, K = 0 where there is none."""
    if table.grad is None:
        return torch.zeros(0, dtype=torch.int64, device=table.device), table.new_zeros(0, table.shape[1])
    gradient = table.grad.coalesce()
    return gradient.indices()[0], gradient.values()
