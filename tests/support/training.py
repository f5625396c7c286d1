"""Training without a suite: the parts as they are, one stage, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from grbench.data.split import Split
from grbench.interfaces import Trainer
from grbench.training.loop import train
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainingResult, TrainState, WeightedLosses
from grbench_reference.trainers.supervised import Supervised


def state_of(
    encoder: nn.Module,
    losses: WeightedLosses,
    optimizers: Sequence[Optimizer],
    options: TrainingOptions,
    *,
    seed: int = 0,
    trainer: Trainer | None = None,
) -> TrainState:
    """A state whose optimizers are made already."""
    trainer = trainer or Supervised()
    return TrainState(encoder, losses, trainer, lambda _: optimizers, options, device="cpu", seed=seed)


def train_once(
    encoder: nn.Module,
    losses: WeightedLosses,
    optimizers: Sequence[Optimizer],
    split: Split,
    options: TrainingOptions,
    *,
    seed: int = 0,
    trainer: Trainer | None = None,
    **of_the_loop: Any,
) -> TrainingResult:
    """Trains `encoder` in place."""
    state = state_of(encoder, losses, optimizers, options, seed=seed, trainer=trainer)
    return train(state, split, **of_the_loop)
