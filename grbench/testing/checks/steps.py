"""Training steps of a state outside of the training loop, and what a checkpoint makes of a state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grbench.checkpoint.file import read_file, write_file
from grbench.interfaces import Encoder, optional
from grbench.temporary import temporary_folder
from grbench.testing.checks.check import skip_unless
from grbench.training.loop import batches_of, examples_of
from grbench.training.state import TrainState
from grbench.types import Batch


def begun(state: TrainState) -> TrainState:
    """The state at its first batch, in training mode."""
    skip_unless(
        any(parameter.requires_grad for parameter in state.encoder.parameters()), "the encoder has nothing to learn"
    )
    state.begin()
    state.train()
    return state


def batches(state: TrainState) -> Iterator[Batch]:
    """Those of the running epoch that are not done."""
    examples = examples_of(state)
    state.steps = examples.num_batches(state.options.batch_size)
    return batches_of(state, examples)


def steps(state: TrainState, number: int) -> list[Mapping[str, Tensor | float]]:
    """Trains on the next batches of the epoch -> what the trainer gives for each."""
    state.train()
    given = []
    for batch, _ in zip(batches(state), range(number), strict=False):
        state.step += 1
        given.append(state.trainer.step(state, batch))
        state.steps_run += 1
    return given


def through_a_checkpoint(saved: Mapping[str, Any]) -> dict[str, Any]:
    """What is read of a checkpoint file that holds this."""
    with temporary_folder() as folder:
        write_file(folder / "checkpoint.safetensors", "checkpoint", {}, saved)
        return read_file(folder / "checkpoint.safetensors", "checkpoint")[1]


def sum_of_losses(losses: list[nn.Module], encoder: nn.Module, batch: Batch) -> Tensor:
    """All terms, those of the encoder itself included."""
    with optional(encoder, Encoder.one_pass)() as own_terms:
        terms = [term for loss in losses for term in loss(encoder, batch).values()]
        terms += own_terms().values()
    return torch.stack([term.float() for term in terms]).sum()


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that are not the same in both."""
    return [name for name, value in one.items() if not torch.equal(_dense(value), _dense(other[name]))]


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies, which do not change any more."""
    return {name: value.detach().clone() for name, value in tensors.items()}


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, those that are not saved included."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _dense(value: Tensor) -> Tensor:
    return value.to_dense() if value.is_sparse else value
