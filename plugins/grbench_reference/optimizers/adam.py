"""Adam and AdamW. Everything with dense gradients gets one fused optimizer, tables with sparse ones get RowAdam; or all
tables get row-wise Adagrad, whose state is a number a row.
"""

from __future__ import annotations

import torch
from torch import nn

from grbench.errors import SuiteError
from grbench_reference.optimizers.parameters import Beta, Decay, Parameters, Rate, Tables, adam_family


def adam(
    module: nn.Module,
    *,
    lr: Rate = 1e-3,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
    eps: Rate = 1e-8,
    tables: Tables = "adam",
    table_lr: Rate | None = None,
) -> list[torch.optim.Optimizer]:
    """Adam (arXiv 1412.6980).

    Args:
        lr: learning rate (paper: 0.001).
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares (the paper's released code: 0.98).
        eps: added to the denominator.
        tables: what updates embedding tables: adam, or rowwise_adagrad with one number of state a row.
        table_lr: learning rate of embedding tables; null = lr.
    """
    parameters = Parameters.of(module)
    matrices = parameters.maps + parameters.matrices
    return adam_family(parameters, matrices, lr=lr, betas=(beta1, beta2), eps=eps, tables=tables, table_lr=table_lr)


def adamw(
    module: nn.Module,
    *,
    lr: Rate = 1e-3,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
    eps: Rate = 1e-8,
    weight_decay: Decay = 0.01,
    tables: Tables = "adam",
    table_lr: Rate | None = None,
    table_weight_decay: Decay = 0.0,
) -> list[torch.optim.Optimizer]:
    """Adam with decoupled weight decay (arXiv 1711.05101). Biases, normalisations and other vectors do not decay.

    Args:
        lr: learning rate.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares.
        eps: added to the denominator.
        weight_decay: of matrices.
        tables: what updates embedding tables: adam, or rowwise_adagrad with one number of state a row.
        table_lr: learning rate of embedding tables; null = lr.
        table_weight_decay: of embedding tables with dense gradients; sparse ones and those of rowwise_adagrad do not
            decay.
    """
    _no_decay_by_rows(tables, table_weight_decay)
    parameters = Parameters.of(module)
    return adam_family(
        parameters,
        parameters.maps + parameters.matrices,
        lr=lr,
        betas=(beta1, beta2),
        eps=eps,
        weight_decay=weight_decay,
        tables=tables,
        table_lr=table_lr,
        table_weight_decay=table_weight_decay,
    )


def _no_decay_by_rows(tables: Tables, table_weight_decay: float) -> None:
    if tables == "rowwise_adagrad" and table_weight_decay:
        raise SuiteError(
            f"optimizer.table_weight_decay: {table_weight_decay:g}, but tables that rowwise_adagrad updates do not "
            "decay; leave it out, or set tables: adam"
        )
