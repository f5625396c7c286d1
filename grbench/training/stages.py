"""A method put together and trained: its parts from plug-ins, then stage after stage on one encoder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from grbench.checkpoint.stage import saved_codes, saved_results
from grbench.cost.meter import Meter, count_parameters
from grbench.cost.monitor import Throughput
from grbench.data.codes import checked_codes, current_codes
from grbench.distributed.ranks import current
from grbench.distributed.row_table import divide_tables
from grbench.encoder_shapes import check_shapes
from grbench.errors import PluginError, SuiteError
from grbench.evaluation.scoring import validation_scores
from grbench.interfaces import Loss, Retriever, Tokenizer, optional
from grbench.registry.discovery import Registry
from grbench.training.loop import Checkpoint, Validate, joined, train
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainingResult, TrainState, WeightedLosses
from grbench.types import DEFAULT_LIST_LENGTH, Report

if TYPE_CHECKING:
    from grbench.data.split import Split
    from grbench.data.training_data import TrainingData
    from grbench.interfaces import Metric
    from grbench.suite.method import Stage
    from grbench.suite.suite import Cell
    from grbench.types import Codes


class KeepsCheckpoints(Protocol):
    """What a trained cell goes on from, and what is told how far it is (`grbench/run/checkpoints.py`)."""

    def take_codes(self) -> Codes | None:
        """The codes of a tokenizer that need not be fitted again, None = it has to be. Sets the random generators."""

    def tokenizer_fitted(self, codes: Codes) -> None:
        """Called where the tokenizer has just been fitted."""

    def take_stage(self) -> Mapping[str, Any] | None:
        """As `resume` of `learn`; called once."""

    def __call__(self, state: TrainState) -> None:
        """As `checkpoint` of `learn`."""


@dataclass(frozen=True)
class Assembled:
    """A method's parts, on the device; its losses, trainers and optimizers are made stage by stage."""

    codes: Codes
    encoder: nn.Module
    retriever: Retriever
    metrics: list[Metric]


def train_method(
    cell: Cell,
    registry: Registry,
    split: Split,
    *,
    device: str,
    report: Report,
    meter: Meter,
    throughput: Throughput | None = None,
    checkpoints: KeepsCheckpoints | None = None,
    log_every: Collection[int] = (),
) -> tuple[Assembled, TrainingResult]:
    """The cell's method, trained: its tokenizer is fitted, its parts are made, its stages are trained one by one.

    checkpoints: what the cell goes on from, and what is told how far it is. log_every: as `train` has it.

    Raises RunError where the tokenizer gives codes that do not fit the items, and what `learn` raises.
    """
    tokenizer, num_items = cell.method.tokenizer, split.training.catalogue.num_items
    codes = checkpoints.take_codes() if checkpoints else None
    if codes is None:
        report("phase", name="fit tokenizer")
        with meter.phase("fit_tokenizer"):
            codes = current().done_by_first(
                lambda: optional(registry.build("tokenizers", tokenizer), Tokenizer.fit_reporting)(
                    split.training, partial(_say_how_far, report)
                )
            )
        codes = checked_codes(codes, num_items, f"tokenizer {tokenizer.name}")
        if checkpoints:
            checkpoints.tokenizer_fitted(codes)
    method = assemble(cell, registry, split, codes, device)
    trained = learn(
        cell,
        registry,
        method,
        split,
        device=device,
        report=report,
        meter=meter,
        throughput=throughput,
        checkpoint=checkpoints,
        resume=checkpoints.take_stage() if checkpoints else None,
        log_every=log_every,
    )
    return method, trained


def _say_how_far(report: Report, what: str, done: int, total: int | None) -> None:
    report("fit", what=what, done=done, total=total)


def assemble(cell: Cell, registry: Registry, split: Split, codes: Codes, device: str) -> Assembled:
    """Builds the method's parts from its plug-ins. Raises SuiteError where retriever and encoder do not go together."""
    method = cell.method
    encoder = registry.build("encoders", method.encoder, split.training, codes)
    divide_tables(encoder, method.shard_tables, current())
    retriever = registry.build("retrievers", method.retriever)
    optional(retriever, Retriever.check_encoder)(encoder)
    return Assembled(
        codes=codes,
        encoder=encoder.to(device),
        retriever=retriever,
        metrics=[registry.build("metrics", metric) for metric in cell.metrics],
    )


def learn(
    cell: Cell,
    registry: Registry,
    method: Assembled,
    split: Split,
    *,
    device: str,
    report: Report,
    meter: Meter,
    throughput: Throughput | None = None,
    checkpoint: Checkpoint | None = None,
    resume: Mapping[str, Any] | None = None,
    log_every: Collection[int] = (),
) -> TrainingResult:
    """Trains the encoder in place, stage by stage: each goes on from where the last one ended. The losses of the first
    see the tokenizer's codes, those of a later one the codes that the encoder has learnt by then, where it learns any.

    checkpoint: called after every step and every epoch. resume: the `state_dict` of a state that a checkpoint was given
    in another run of this cell, which training goes on from. log_every: as `train` has it.
    Raises SuiteError where there is a stage and an encoder without anything to learn, DataError where a stage's targets
    are no action of this dataset, PluginError where the encoder's output has not the shapes of its interfaces.
    """
    stages, name = cell.method.stages, cell.method.encoder.name
    if not stages:
        check_shapes(name, method.encoder, split.training, method.codes, callers=[method.retriever], device=device)
        return TrainingResult(parameters=count_parameters(method.encoder))
    if not any(parameter.requires_grad for parameter in method.encoder.parameters()):
        raise SuiteError(f"encoder {name} has nothing to learn; leave out its loss")
    report("phase", name="train")
    throughput = throughput or Throughput(torch.device(device))
    results = [] if resume is None else [TrainingResult(**fields) for fields in saved_results(resume)]
    losses: WeightedLosses = []
    for number, stage in enumerate(stages[len(results) :], start=len(results)):
        data = targets_of(stage, split.training, f"methods.{cell.method.name}.stages.{number}.targets")
        codes = method.codes if resume is None else saved_codes(resume)
        if number and resume is None:
            codes = current_codes(method.encoder, codes, data.catalogue.num_items)
        losses = carried_over(losses, losses_of(stage, registry, data, codes, device))
        options = TrainingOptions(**stage.training)
        state = TrainState(
            method.encoder,
            losses,
            registry.build("trainers", stage.trainer),
            partial(registry.build, "optimizers", stage.optimizer),
            options,
            data=data,
            codes=codes,
            device=device,
            seed=cell.seed,
            name=stage.name,
            finished=results,
        )
        callers = [state.trainer, method.retriever, *(loss for loss, _ in losses)]
        check_shapes(name, state.encoder, state.data, codes, callers=callers, device=device)
        if resume is not None:
            state.load_state_dict(resume)
            resume = None
        trained = train(
            state,
            report=report,
            meter=meter,
            validate=validation(cell, method, split, options, device) if options.validate_every else None,
            higher_is_better=all(metric.higher_is_better for metric in method.metrics if metric.name == options.select),
            epochs_after=sum(TrainingOptions(**later.training).epochs for later in stages[number + 1 :]),
            throughput=throughput,
            checkpoint=checkpoint,
            log_every=log_every,
        )
        results.append(trained)
    return joined(results)


def targets_of(stage: Stage, data: TrainingData, where: str) -> TrainingData:
    """The training data as the stage learns it; raises DataError for an action that the dataset lacks."""
    return data if stage.targets is None else data.with_targets(stage.targets, where)


def losses_of(stage: Stage, registry: Registry, data: TrainingData, codes: Codes, device: str) -> WeightedLosses:
    """The stage's losses, new, on the device. data: as the stage learns it."""
    return [(registry.build("losses", loss, data, codes).to(device), weight) for loss, weight in stage.losses]


@torch.no_grad()
def carried_over(before: WeightedLosses, after: WeightedLosses) -> WeightedLosses:
    """`after`, with what goes on from the losses of the stage before: of each loss that was there, by its class, the
    parameters whose shape is still the same, and the buffers that it names in `survives`.

    Raises PluginError where `survives` names what is no buffer, or a buffer whose shape is another one now.
    """
    left = [loss for loss, _ in before]
    for loss, _ in after:
        buffers, names = dict(loss.named_buffers()), optional(loss, Loss.survives)()
        if unknown := [name for name in names if name not in buffers]:
            raise PluginError(
                f"loss {type(loss).__name__}: survives names {unknown[0]!r}, which is no buffer; there are "
                f"{', '.join(buffers) or 'none'}"
            )
        former = next((each for each in left if type(each) is type(loss)), None)
        if former is None:
            continue
        left.remove(former)
        own = dict(loss.named_parameters()) | {name: buffers[name] for name in names}
        old = dict(former.named_parameters()) | dict(former.named_buffers())
        for name, value in own.items():
            if name not in old:  # a buffer that the stage before did not have: nothing survives
                continue
            if old[name].shape == value.shape:
                value.copy_(old[name])
            elif name in names:
                raise PluginError(
                    f"loss {type(loss).__name__}: {name} survives its stage, but has shape {list(value.shape)} now and "
                    f"had {list(old[name].shape)}; give it the same size in all stages"
                )
    return after


def validation(cell: Cell, method: Assembled, split: Split, options: TrainingOptions, device: str) -> Validate:
    """What training selects by: the metric that its options name, on validation users, and beside it those metrics of
    the suite that the same lists are long enough for."""
    cutoffs = {
        metric.name: component.options.get("k") for component, metric in zip(cell.metrics, method.metrics, strict=True)
    }
    k = int(cutoffs[options.select] or DEFAULT_LIST_LENGTH)  # whatever else the suite measures
    metrics = [
        metric for metric in method.metrics if metric.name == options.select or 0 < (cutoffs[metric.name] or 0) <= k
    ]

    def validate() -> dict[str, float]:
        return validation_scores(
            method.retriever,
            method.encoder,
            split,
            method.codes,
            metrics,
            k=k,
            users=options.validation_users,
            filters=cell.method.filters,
            device=device,
        )

    return validate
