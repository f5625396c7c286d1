"""From losses to updates of the parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from grbench.training.options import TrainingOptions


class Updates:
    """Accumulation, loss scaling, clipping, the learning rate's course. `steps` = batches an epoch."""

    def __init__(
        self,
        module: nn.Module,
        optimizers: Sequence[Optimizer],
        options: TrainingOptions,
        steps: int,
        device: torch.device,
    ) -> None:
        self.optimizers, self.options = optimizers, options
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
        updates = -(-steps // options.accumulate) * options.epochs
        self.schedules = [
            LambdaLR(optimizer, lambda update: _rate(update, updates, options)) for optimizer in optimizers
        ]

    def backward(self, loss: Tensor, step: int, steps: int) -> None:
        """Adds the gradients of one batch; `step` is 1 for an epoch's first of `steps`."""
        group = self.options.accumulate
        last_group = (step - 1) // group * group + group > steps
        self.scaler.scale(loss / (steps % group if last_group else group)).backward()  # type: ignore[no-untyped-call]

    def update(self, step: int, steps: int) -> None:
        """Updates the parameters where `step` ends a group of batches."""
        if step % self.options.accumulate and step != steps:
            return
        if self.options.clip_norm is not None:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
            clip_gradients(self.parameters, self.options.clip_norm)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.zero_grad(set_to_none=True)
            schedule.step()


def _rate(update: int, updates: int, options: TrainingOptions) -> float:
    """The learning rate of an update, 0 the first, as a share of the full one."""
    if update < options.warmup_steps:
        return (update + 1) / options.warmup_steps
    if options.schedule == "constant":
        return 1.0
    done = min(1.0, (update - options.warmup_steps) / max(1, updates - options.warmup_steps))
    left = 0.5 * (1 + math.cos(math.pi * done)) if options.schedule == "cosine" else 1 - done
    return options.final_rate + (1 - options.final_rate) * left


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> None:
    """Scales all gradients so that their norm is at most `largest`; sparse ones too. The device is not waited for."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    values = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    if values:
        norm = torch.stack([torch.linalg.vector_norm(value) for value in values]).norm()
        for gradient in gradients:
            gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))
