"""A method put together and trained: its parts from plug-ins, then stage after stage on one encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from grbench.cost.meter import Meter
from grbench.errors import SuiteError
from grbench.evaluation.scoring import validation_score
from grbench.registry.discovery import Registry
from grbench.training.loop import Place, TrainingResult, Validate, joined, train
from grbench.training.monitor import Throughput
from grbench.training.options import TrainingOptions
from grbench.types import DEFAULT_LIST_LENGTH, Report

if TYPE_CHECKING:
    from grbench.data.split import Split
    from grbench.data.training_data import TrainingData
    from grbench.interfaces import Metric, Retriever
    from grbench.registry.component import Component
    from grbench.suite.method import Stage
    from grbench.suite.suite import Cell
    from grbench.types import Codes

Losses = list[tuple[nn.Module, float]]
"""With their weights."""


@dataclass(frozen=True)
class Assembled:
    """A method's parts, on the device. losses_for: makes the losses anew for other targets."""

    codes: Codes
    encoder: nn.Module
    losses: Losses
    losses_for: Callable[[TrainingData], Losses]
    retriever: Retriever
    metrics: list[Metric]


def assemble(cell: Cell, registry: Registry, split: Split, codes: Codes, device: str) -> Assembled:
    """Builds the method's parts from its plug-ins."""
    method, data = cell.method, split.training

    def losses_for(data: TrainingData) -> Losses:
        return [(build(registry, "losses", loss, data, codes).to(device), weight) for loss, weight in method.losses]

    return Assembled(
        codes=codes,
        encoder=build(registry, "encoders", method.encoder, data, codes).to(device),
        losses=losses_for(data),
        losses_for=losses_for,
        retriever=build(registry, "retrievers", method.retriever),
        metrics=[build(registry, "metrics", metric) for metric in cell.metrics],
    )


def learn(
    cell: Cell, registry: Registry, method: Assembled, split: Split, *, device: str, report: Report, meter: Meter
) -> TrainingResult:
    """Trains the encoder in place where the method has a loss: each stage goes on from where the last one ended.

    Raises SuiteError where there is a loss and an encoder without anything to learn, DataError where a stage's targets
    are no action of this dataset.
    """
    course = cell.method.course
    if not course:
        return TrainingResult()
    if not any(parameter.requires_grad for parameter in method.encoder.parameters()):
        raise SuiteError(f"encoder {cell.method.encoder.name} has nothing to learn; leave out its loss")
    report("phase", name="train")
    throughput, losses = Throughput(torch.device(device)), method.losses
    results: list[TrainingResult] = []
    for number, stage in enumerate(course):
        data = targets_of(stage, split.training, f"methods.{cell.method.name}.stages.{number}.targets")
        if number or data is not split.training:
            losses = following(losses, method.losses_for(data))
        learnt = nn.ModuleDict({"encoder": method.encoder, "losses": nn.ModuleList(loss for loss, _ in losses)})
        options = TrainingOptions(**stage.training)
        trained = train(
            method.encoder,
            losses,
            build(registry, "optimizers", stage.optimizer, learnt),
            replace(split, training=data),
            options,
            seed=cell.seed,
            device=device,
            report=report,
            meter=meter,
            validate=validation(cell, method, split, options, device) if options.validate_every else None,
            higher_is_better=all(metric.higher_is_better for metric in method.metrics if metric.name == options.select),
            place=Place(
                stage.name,
                epochs_before=sum(result.epochs_run for result in results),
                epochs_after=sum(TrainingOptions(**later.training).epochs for later in course[number + 1 :]),
            ),
            throughput=throughput,
        )
        results.append(trained)
    return joined(results)


def targets_of(stage: Stage, data: TrainingData, where: str) -> TrainingData:
    """The training data as the stage learns it; raises DataError for an action that the dataset lacks."""
    return data if stage.targets is None else data.with_targets(stage.targets, where)


@torch.no_grad()
def following(before: Losses, after: Losses) -> Losses:
    """`after` with what the losses of the stage before have learnt. What they count or keep of steps, a bank of other
    targets say, is not learnt, and begins anew."""
    for (loss, _), (former, _) in zip(after, before, strict=True):
        for parameter, learnt in zip(loss.parameters(), former.parameters(), strict=True):
            parameter.copy_(learnt)
    return after


def validation(cell: Cell, method: Assembled, split: Split, options: TrainingOptions, device: str) -> Validate:
    """What training selects by: the metric that its options name, on validation users."""

    component, metric = next(
        (component, metric)
        for component, metric in zip(cell.metrics, method.metrics, strict=True)
        if metric.name == options.select
    )

    def validate() -> dict[str, float]:
        value = validation_score(
            method.retriever,
            method.encoder,
            split,
            method.codes,
            metric,
            k=int(component.options.get("k") or DEFAULT_LIST_LENGTH),  # whatever else the suite measures
            filters=cell.method.filters,
            device=device,
        )
        return {metric.name: value}

    return validate


def build(registry: Registry, kind: str, component: Component, *runtime_objects: object) -> Any:
    """A plug-in with the options that the suite gave it."""
    return registry.build(kind, component, *runtime_objects)
