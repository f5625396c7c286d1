"""Training without a suite: the parts as they are, one stage, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from grbench.data.split import Split
from grbench.data.training_data import TrainingData
from grbench.interfaces import Trainer
from grbench.training.loop import train
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainingResult, TrainState, WeightedLosses
from grbench.types import Codes
from grbench_reference.trainers.supervised import Supervised


def state_of(
    encoder: nn.Module,
    losses: WeightedLosses,
    optimizers: Sequence[Optimizer],
    options: TrainingOptions,
    *,
    data: TrainingData | None = None,
    codes: Codes | None = None,
    seed: int = 0,
    trainer: Trainer | None = None,
) -> TrainState:
    """A state whose optimizers are made already; one that reads no batches needs no data."""
    codes = codes or Codes(torch.zeros(1, 1, dtype=torch.int64), (1,))
    parts = encoder, losses, trainer or Supervised(), lambda _: optimizers, options
    return TrainState(*parts, data=data, codes=codes, device="cpu", seed=seed)


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
    state = state_of(encoder, losses, optimizers, options, data=split.training, seed=seed, trainer=trainer)
    return train(state, **of_the_loop)
