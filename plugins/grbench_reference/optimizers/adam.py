"""Adam and AdamW. Tables with sparse gradients get torch's SparseAdam, everything else one fused dense optimizer."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.sparse import Embedding, EmbeddingBag

Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


def adam(
    module: nn.Module, *, lr: Rate = 1e-3, beta1: Beta = 0.9, beta2: Beta = 0.999, eps: Rate = 1e-8
) -> list[torch.optim.Optimizer]:
    """Adam (arXiv 1412.6980).

    Args:
        lr: learning rate (paper: 0.001).
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares (the paper's released code: 0.98).
        eps: added to the denominator.
    """
    dense, sparse = _split(module)
    return _optimizers([{"params": dense}], sparse, torch.optim.Adam, lr=lr, betas=(beta1, beta2), eps=eps)


def adamw(
    module: nn.Module,
    *,
    lr: Rate = 1e-3,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
    eps: Rate = 1e-8,
    weight_decay: Decay = 0.01,
    table_weight_decay: Decay = 0.0,
) -> list[torch.optim.Optimizer]:
    """Adam with decoupled weight decay (arXiv 1711.05101). Biases, normalisations and other vectors do not decay.

    Args:
        lr: learning rate.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares.
        eps: added to the denominator.
        weight_decay: of matrices.
        table_weight_decay: of embedding tables with dense gradients; sparse ones do not decay.
    """
    dense, sparse = _split(module)
    tables = {
        parameter
        for child in module.modules()
        if isinstance(child, Embedding | EmbeddingBag)
        for parameter in child.parameters()
    }
    vectors = [parameter for parameter in dense if parameter.ndim < 2]
    matrices = [parameter for parameter in dense if parameter.ndim >= 2 and parameter not in tables]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": [parameter for parameter in dense if parameter in tables], "weight_decay": table_weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return _optimizers(groups, sparse, torch.optim.AdamW, lr=lr, betas=(beta1, beta2), eps=eps)


def _split(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters with dense gradients, and the tables with sparse ones."""
    tables = [child for child in module.modules() if isinstance(child, Embedding | EmbeddingBag) and child.sparse]
    sparse = {parameter for table in tables for parameter in table.parameters() if parameter.requires_grad}
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [parameter for parameter in learnt if parameter not in sparse], [*sparse]


def _optimizers(
    groups: list[dict[str, Any]],
    sparse: list[nn.Parameter],
    kind: type[torch.optim.Adam],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> list[torch.optim.Optimizer]:
    optimizers: list[torch.optim.Optimizer] = []
    groups = [group for group in groups if group["params"]]
    if groups:
        optimizers.append(kind(groups, lr=lr, betas=betas, eps=eps, fused=True))
    if sparse:
        # Rows that a batch does not touch keep their moments: Adam on the rows' own clock.
        optimizers.append(torch.optim.SparseAdam(sparse, lr=lr, betas=betas, eps=eps))
    return optimizers
