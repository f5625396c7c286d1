"""Gradient clipping, the check for gradients that are not finite, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from grbench.distributed.ranks import current
from grbench.training.options import TrainingOptions


def learning_rate(update: int, updates: int, options: TrainingOptions) -> float:
    """The learning rate of an update (0 = the first) of a stage with so many, as a share of the optimizer's own."""
    warmup = max(1, int(options.warmup_share * updates)) if options.warmup_share else options.warmup_steps
    if update < warmup:
        return (update + 1) / warmup
    if options.schedule == "constant":
        return 1.0
    done = min(1.0, (update - warmup) / max(1, updates - warmup))
    left = 0.5 * (1 + math.cos(math.pi * done)) if options.schedule == "cosine" else 1 - done
    return options.final_rate + (1 - options.final_rate) * left


def set_learning_rate(optimizers: Sequence[Optimizer], share: float) -> None:
    """Sets every group's rate to this share of the one that it was made with, which it keeps as `initial_lr`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * share


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float, divided: Collection[nn.Parameter] = ()) -> None:
    """Scales all gradients, sparse ones too, so that their norm is at most `largest`; the host does not wait.

    divided: of the parameters, those of which other ranks have other rows, which count in the norm too."""
    gradients, norm = _gradients_and_norm(parameters, divided)
    for gradient in gradients:
        gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))


def spoil_unless_finite(parameters: Sequence[nn.Parameter], divided: Collection[nn.Parameter] = ()) -> None:
    """Makes every gradient not a number where the norm of all of them is not finite, and leaves them else.

    A gradient scaler skips the update of each optimizer whose gradients are not finite: this way it skips all or none.
    It does not wait for the device. divided: as in `clip_gradients`.
    """
    gradients, norm = _gradients_and_norm(parameters, divided)
    for gradient in gradients:
        values = gradient._values() if gradient.is_sparse else gradient
        values.add_(norm * 0)


def _gradients_and_norm(
    parameters: Sequence[nn.Parameter], divided: Collection[nn.Parameter]
) -> tuple[list[Tensor], Tensor]:
    """The gradients that there are, and the norm of all their numbers together, those of other ranks' rows included."""
    if divided:
        alike = [each for each in parameters if not any(each is other for other in divided)]
        (gradients, norm), (own, own_norm) = _gradients_and_norm(alike, ()), _gradients_and_norm(list(divided), ())
        device = parameters[0].device
        of_all_rows = current().total(own_norm.to(device).square())
        return [*gradients, *own], (norm.to(device).square() + of_all_rows).sqrt()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    values = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    norms = [torch.linalg.vector_norm(value) for value in values]
    return gradients, torch.stack(norms).norm() if norms else torch.zeros(())
