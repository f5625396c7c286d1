"""Muon for the weights of linear maps, AdamW for the rest: the hybrid of the challenge's first place (paper, section 7)
and of its strongest open solution (shuoyang2/OnePiece), whose settings are the defaults.
"""

from __future__ import annotations

import torch
from torch import nn

from grbench_reference.optimizers.parameters import Beta, Decay, Parameters, Rate, Tables, adam_family


def muon(
    module: nn.Module,
    *,
    lr: Rate = 0.02,
    momentum: Beta = 0.95,
    weight_decay: Decay = 1e-5,
    adamw_lr: Rate = 4e-3,
    beta1: Beta = 0.9,
    beta2: Beta = 0.98,
    eps: Rate = 1e-9,
    tables: Tables = "adam",
    table_lr: Rate | None = None,
) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024, torch.optim.Muon): momentum made orthogonal by Newton-Schulz iterations.

    It updates the weights of Linear layers. AdamW updates all else: biases and norms; embeddings, which are looked up
    and not multiplied; experts, whose matrices lie in stacks of three dimensions, where torch's Muon takes two. A fused
    weight, such as that of queries, keys and values, is one matrix. Schedules apply to every part.

    Args:
        lr: of Muon; a matrix of more rows than columns takes the square root of their ratio times as much.
        momentum: of Muon, with Nesterov's look ahead.
        weight_decay: of matrices, by either; tables and vectors do not decay (OnePiece: all of AdamW's do).
        adamw_lr: learning rate of AdamW.
        beta1: decay of the mean of AdamW's gradients.
        beta2: decay of the mean of their squares.
        eps: added to AdamW's denominator.
        tables: what updates embedding tables: adam, or rowwise_adagrad with one number of state a row.
        table_lr: learning rate of embedding tables; null = adamw_lr.
    """
    parameters = Parameters.of(module)
    optimizers: list[torch.optim.Optimizer] = []
    if parameters.maps:
        optimizers.append(torch.optim.Muon(parameters.maps, lr=lr, momentum=momentum, weight_decay=weight_decay))
    return optimizers + adam_family(
        parameters,
        parameters.matrices,
        lr=adamw_lr,
        betas=(beta1, beta2),
        eps=eps,
        weight_decay=weight_decay,
        tables=tables,
        table_lr=table_lr,
    )
