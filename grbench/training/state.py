"""All that a stage of training has come to: what a trainer works on, and what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from grbench.checkpoint.stage import load_stage, saved_stage
from grbench.distributed.gradients import average_gradients
from grbench.distributed.ranks import current
from grbench.distributed.row_table import divided_weights
from grbench.interfaces import Encoder, Loss, Trainer, TrainEvalOptimizer, optional
from grbench.training.options import TrainingOptions
from grbench.training.selection import BestState
from grbench.training.update import clip_gradients, learning_rate, set_learning_rate, spoil_unless_finite
from grbench.types import Batch, Codes

if TYPE_CHECKING:
    from grbench.data.training_data import TrainingData

WeightedLosses = list[tuple[nn.Module, Any]]
"""Losses with the weights that their terms count, numbers or scalar tensors."""


@dataclass(frozen=True)
class TrainingResult:
    """curve: one row an epoch: epoch, what the trainer's steps gave in the mean (`loss` and its terms),
    users_per_second, validation scores where there are any; the stage's name where there are several.

    parameters: of the encoder, of the losses and of what else was trained.
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
    parameters: int = 0
    users_per_second: float | None = None
    events_per_second: float | None = None
    steps_per_second: float | None = None
    warm_up_steps: int = 0
    flops_per_step: int | None = None


class TrainState:
    """One stage of training, from its first batch to its last.

    data, codes: what the stage learns from, and the items' codes as it begins, on the host. Where the encoder predicts
        the first event, users' first events are targets of the data.
    modules: the encoder and the losses by these names; what a trainer's `start` adds to it is trained and saved too.
    optimizers: made once the trainer has started. Their learning rates follow from the position alone (`update`), so
        that schedules have no state.
    scaler: of the loss, for fp16; it does nothing at other precisions.
    epoch, step, steps: the position. The running epoch, counted from 1 through all stages; the batches of it that are
        done, the one that a trainer is given included; how many it has.
    first_epoch: the stage's first one.
    totals: {name: (sum, steps)} of what the trainer's steps gave in the running epoch.
    curve: the rows of the stage's epochs that are done.
    finished: the results of the stages before.
    ranks: the processes that train it together, each with its part of a batch; one where there is one device.
    """

    def __init__(
        self,
        encoder: nn.Module,
        losses: WeightedLosses,
        trainer: Trainer,
        make_optimizers: Callable[[nn.Module], Sequence[Optimizer]],
        options: TrainingOptions,
        *,
        data: TrainingData,
        codes: Codes,
        device: torch.device | str,
        seed: int,
        name: str = "",
        finished: Sequence[TrainingResult] = (),
    ) -> None:
        """encoder and losses are on `device` already. data: as the stage learns it. codes: as it begins.
        name: the stage's, where a method has several. finished: the results of the stages before.

        Nothing is started yet; see `begin`.
        """
        self.encoder, self.losses, self.trainer, self.options = encoder, losses, trainer, options
        predicts_first = optional(encoder, Encoder.predicts_first_event)()
        self.data, self.codes = data.with_first_events() if predicts_first else data, codes
        self.ranks = current()
        self.device, self.seed, self.name, self.finished = torch.device(device), seed, name, list(finished)
        self.modules = nn.ModuleDict({"encoder": encoder, "losses": nn.ModuleList(loss for loss, _ in losses)})
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        self.optimizers: Sequence[Optimizer] = ()
        self.first_epoch = 1 + sum(result.epochs_run for result in self.finished)
        self.epoch, self.step, self.steps, self.steps_run = self.first_epoch, 0, 0, 0
        self.totals: dict[str, tuple[Tensor, int]] = {}
        self.curve: list[dict[str, Any]] = []
        self.best = BestState()
        self.flops_per_step: int | None = None
        self.has_begun = False
        self._make_optimizers = make_optimizers

    @property
    def stage(self) -> int:
        """The stage's number, 0 = the first."""
        return len(self.finished)

    @property
    def total_steps(self) -> int:
        """Batches that are done, over all epochs and stages."""
        return self.steps_run + sum(result.steps_run for result in self.finished)

    def begin(self) -> None:
        """Seeds torch in the first stage, tells the losses their stage, starts the trainer, makes the optimizers."""
        if self.has_begun:
            return
        if not self.finished:  # a later stage draws on from where the one before it stopped
            torch.manual_seed(self.seed)
        for loss, _ in self.losses:
            optional(loss, Loss.start_stage)(self.name, self.stage)
        optional(self.trainer, Trainer.start)(self)
        self.optimizers = self._make_optimizers(self.modules)
        self.has_begun = True

    # --- what trainers call

    def autocast(self) -> torch.autocast:
        """The context that losses are computed in, by the precision of the options."""
        if self.options.precision == "fp32":
            return torch.autocast(self.device.type, enabled=False)
        half = torch.bfloat16 if self.options.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=half)

    def weighted_losses(self, batch: Batch) -> WeightedLosses:
        """The losses, with the weights that their terms count in this batch. On several devices, whose gradients are
        averaged, a device counts by its share of the positions, so that the mean is the whole batch's."""
        if self.ranks.alone or not self.losses:
            return self.losses
        own = torch.stack([optional(loss, Loss.weight)(batch).detach().float() for loss, _ in self.losses])
        shares = self.ranks.size * own / self.ranks.total(own).clamp(min=torch.finfo(torch.float32).tiny)
        return [(loss, weight * share) for (loss, weight), share in zip(self.losses, shares, strict=True)]

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to those that wait for the next update; in fp16 the loss is scaled first."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Updates the parameters by the gradients that wait, which are unscaled and clipped, and clears them.

        The learning rate is that of the batch's position in the stage, however often a trainer updates. In fp16 an
        update whose gradients have no finite norm is left out, for all optimizers. Without optimizers nothing happens.
        On several devices gradients are averaged first.
        """
        if not self.optimizers:
            return
        average_gradients(self.modules, self.ranks)
        set_learning_rate(self.optimizers, self._learning_rate())
        parameters = [parameter for parameter in self.modules.parameters() if parameter.requires_grad]
        divided = divided_weights(self.modules)
        if self.scaler.is_enabled():
            spoil_unless_finite(parameters, divided)
        if self.options.clip_norm is not None:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
            clip_gradients(parameters, self.options.clip_norm, divided)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _learning_rate(self) -> float:
        """The share of the full rate at this batch; batches that are accumulated are one update."""
        groups = -(-self.steps // self.options.accumulate)
        done = (self.epoch - self.first_epoch) * groups + (self.step - 1) // self.options.accumulate
        return learning_rate(done, groups * self.options.epochs, self.options)

    # --- what the loop calls

    def train(self) -> None:
        """Puts modules, and optimizers that have modes, into training mode."""
        self.modules.train()
        for optimizer in self.optimizers:
            if isinstance(optimizer, TrainEvalOptimizer):
                optimizer.train()

    def eval(self) -> None:
        """Puts modules, and optimizers that have modes, into evaluation mode."""
        self.modules.eval()
        for optimizer in self.optimizers:
            if isinstance(optimizer, TrainEvalOptimizer):
                optimizer.eval()

    # --- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors: after any step, gradients that wait for their update included.

        Loaded into a state made of the same parts in another process, training goes on with the same numbers.
        `torch.load(weights_only=True)` reads what `torch.save` writes of it. Tensors are not copied: save it, or copy
        it, before the next step.

        Where tables are divided among ranks, all of them call it, and the first one's holds the whole tables.
        """
        return saved_stage(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on from where `state_dict` was made. The state is begun if it is not yet; tensors are taken over.

        Raises ValueError where `saved` is of another stage, and UnusableCheckpointError where its parts are others.
        """
        load_stage(self, saved)
