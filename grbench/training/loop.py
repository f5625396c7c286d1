"""The one training loop. It knows encoders, losses and optimizers by their interfaces only.

Shapes: B users a batch, T history length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from grbench.cost.flops import FlopCount
from grbench.cost.meter import Meter, let_go
from grbench.data.batches import num_training_batches, training_batches
from grbench.data.split import Split
from grbench.data.training_data import TrainingData
from grbench.errors import DataError, SuiteError
from grbench.interfaces import Encoder, optional
from grbench.training.monitor import WARM_UP_STEPS, EpochMonitor, Throughput, silent
from grbench.training.options import TrainingOptions
from grbench.training.update import Updates
from grbench.types import Batch, Report

STEPS_UNTIL_LET_GO = 16
"""The host's heap breaks up, as no two steps take blocks of the same sizes: left alone it grows by some MB a step."""

Validate = Callable[[], Mapping[str, float]]
"""Scores of the encoder as it stands, by metric name."""


@dataclass(frozen=True)
class TrainingResult:
    """curve: one row an epoch: epoch, loss and its terms, users_per_second, validation scores where there are any; the
    stage's name where there are several.

    Throughput leaves out validation and the first `warm_up_steps` steps; None where nothing was left to measure.
    flops_per_step: of the first step, forward and backward (`FlopCount`); None where too few steps were made to have
    one that is not timed.
    """

    curve: list[dict[str, Any]] = field(default_factory=list)
    epochs_run: int = 0
    steps_run: int = 0
    best_epoch: int | None = None
    best_score: float | None = None
    stopped_early: bool = False
    users_per_second: float | None = None
    events_per_second: float | None = None
    steps_per_second: float | None = None
    warm_up_steps: int = 0
    flops_per_step: int | None = None


@dataclass(frozen=True)
class Place:
    """Where a stage stands among those of a training; epochs are counted through all of them."""

    stage: str = ""
    epochs_before: int = 0
    epochs_after: int = 0


class TrainStep(nn.Module):
    """What is compiled, and wrapped for several devices: a batch in, the losses' weighted terms out."""

    def __init__(self, encoder: nn.Module, losses: Sequence[tuple[nn.Module, float]]) -> None:
        super().__init__()
        self.encoder = encoder
        self.losses = nn.ModuleList(loss for loss, _ in losses)
        self.weights = [weight for _, weight in losses]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """-> {term: weighted scalar}, those of the encoder itself among them; terms of one name add up."""
        terms: dict[str, Tensor] = {}
        with optional(self.encoder, Encoder.one_pass)() as own_terms:
            for loss, weight in zip(self.losses, self.weights, strict=True):
                for name, value in loss(self.encoder, batch).items():
                    terms[name] = terms.get(name, 0.0) + weight * value
            for name, value in own_terms().items():
                terms[name] = terms.get(name, 0.0) + value
        return terms


def train(
    encoder: nn.Module,
    losses: Sequence[tuple[nn.Module, float]],
    optimizers: Sequence[Optimizer],
    split: Split,
    options: TrainingOptions,
    *,
    seed: int,
    device: torch.device | str,
    report: Report = silent,
    meter: Meter | None = None,
    validate: Validate | None = None,
    higher_is_better: bool = True,
    place: Place = Place(),
    throughput: Throughput | None = None,
) -> TrainingResult:
    """Trains `encoder` in place; with validation it ends in its best state. The same seed gives the same numbers.

    encoder, losses and the optimizers' parameters are on `device` already; `higher_is_better` says which way the metric
    that chooses the best state goes. A stage of several is told its `place`, and the `throughput` all share. Raises
    DataError where there is nothing to learn from, RunError (epoch and step named) when the loss is no longer a number.
    """
    device = torch.device(device)
    meter = meter or Meter(device)
    steps = _steps(split.training, options)
    if not place.epochs_before:  # a later stage draws on from where the one before it stopped
        torch.manual_seed(seed)
    if place.stage:
        report = partial(report, what=f"train {place.stage}")
    step_module = TrainStep(encoder, losses)
    run_step = torch.compile(step_module) if options.compile else step_module
    batches_of = partial(
        training_batches,
        split.training,
        history_length=int(encoder.history_length),  # type: ignore[arg-type]
        batch_size=options.batch_size,
        workers=options.workers,
        pin_memory=device.type == "cuda",
    )
    updates = Updates(step_module, optimizers, options, steps, device)
    best = _Best(options, higher_is_better)
    warm_up = min(WARM_UP_STEPS, steps * options.epochs // 10)
    throughput = throughput or Throughput(device)
    throughput.warm_up(warm_up)
    curve: list[dict[str, Any]] = []
    named = {"stage": place.stage} if place.stage else {}
    # A counted step is slow and never compiled, so it has to be a warm-up step; compilation then needs the next.
    counted = FlopCount() if warm_up > int(options.compile) else None

    first, last = place.epochs_before + 1, place.epochs_before + options.epochs
    epochs = last + place.epochs_after

    for epoch in range(first, last + 1):
        step_module.train()
        watched = EpochMonitor(epoch, epochs, steps, throughput=throughput, report=report)
        with meter.phase("train") as phase:
            throughput.resume()
            for step, batch in enumerate(batches_of(seed=seed, epoch=epoch), start=1):
                counting = counted if (epoch, step) == (first, 1) else None
                with counting or nullcontext():
                    with torch.autocast(device.type, **autocast_of(options)):
                        terms = (step_module if counting else run_step)(batch.to(device, non_blocking=True))
                        loss = sum_of(terms)
                    updates.backward(loss, step, steps)
                updates.update(step, steps)
                if step % STEPS_UNTIL_LET_GO == 0:
                    let_go()
                watched.step(step, batch, loss, terms)
            curve.append({**named, "epoch": epoch, **watched.finish()})
            throughput.pause()
            phase.note(**throughput.figures())
        if validate is not None and options.validate_every and len(curve) % options.validate_every == 0:
            step_module.eval()
            with meter.phase("validate"), torch.no_grad():
                scores = dict(validate())
            curve[-1].update(scores)
            report("validate", epoch=epoch, epochs=epochs, step=steps, steps=steps, **scores)
            best.see(epoch, scores, encoder)
            if best.is_stale():
                break

    best.restore(encoder)
    step_module.eval()
    return TrainingResult(
        curve=curve,
        epochs_run=len(curve),
        steps_run=len(curve) * steps,
        best_epoch=best.epoch,
        best_score=best.score,
        stopped_early=len(curve) < options.epochs,
        flops_per_step=counted.flops if counted else None,
        **throughput.figures(),
    )


def joined(stages: Sequence[TrainingResult]) -> TrainingResult:
    """One result of all stages: the state is the last one's choice; they share a throughput."""
    steps = sum(stage.steps_run for stage in stages)
    counted = [(stage.flops_per_step, stage.steps_run) for stage in stages]
    known = [flops * run for flops, run in counted if flops is not None]
    return replace(
        stages[-1],
        curve=[row for stage in stages for row in stage.curve],
        epochs_run=sum(stage.epochs_run for stage in stages),
        steps_run=steps,
        stopped_early=any(stage.stopped_early for stage in stages),
        flops_per_step=sum(known) // steps if len(known) == len(stages) else None,
    )


def _steps(data: TrainingData, options: TrainingOptions) -> int:
    steps = num_training_batches(data, options.batch_size)
    if not steps:
        raise DataError(
            f"nothing to train on: none of the {len(data.users)} training users has two events, one to learn from and "
            "one to learn; check the dataset and the protocol"
        )
    return steps


def autocast_of(options: TrainingOptions) -> dict[str, Any]:
    """What `torch.autocast` is given."""
    if options.precision == "fp32":
        return {"enabled": False}
    return {"dtype": torch.bfloat16 if options.precision == "bf16" else torch.float16}


def sum_of(terms: Mapping[str, Tensor]) -> Tensor:
    """The loss: the terms added up in float32."""
    return torch.stack([term.float() for term in terms.values()]).sum()


class _Best:
    """The state with the best validation score, kept on the host."""

    def __init__(self, options: TrainingOptions, higher_is_better: bool) -> None:
        self.options = options
        self.sign = 1 if higher_is_better else -1
        self.epoch: int | None = None
        self.score: float | None = None
        self._state: dict[str, Tensor] = {}
        self._since = 0

    def see(self, epoch: int, scores: Mapping[str, float], encoder: nn.Module) -> None:
        """Keeps the encoder's state if its score is the best so far; the first of equals stays."""
        if self.options.select not in scores:
            raise SuiteError(
                f"training.select: no metric {self.options.select!r} is validated; there are {', '.join(scores)}"
            )
        score = scores[self.options.select]
        self._since += 1
        if self.score is None or self.sign * score > self.sign * self.score:
            self.epoch, self.score, self._since = epoch, score, 0
            self._state = {name: value.to("cpu", copy=True) for name, value in encoder.state_dict().items()}

    def is_stale(self) -> bool:
        return self.options.patience is not None and self._since >= self.options.patience

    def restore(self, encoder: nn.Module) -> None:
        """Puts the best state back; leaves the last one where nothing was validated."""
        if self._state:
            encoder.load_state_dict(self._state)
