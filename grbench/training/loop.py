"""The one training loop. It owns batches, epochs, validation and clocks; the trainer owns what a batch does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

import torch

from grbench.cost.flops import FlopCount
from grbench.cost.meter import Meter, count_parameters, return_freed_memory
from grbench.cost.monitor import WARM_UP_STEPS, EpochMonitor, Throughput, no_report
from grbench.data.batches import training_batches
from grbench.data.examples import Examples, newest_events
from grbench.distributed.alike import check_alike
from grbench.errors import DataError
from grbench.interfaces import Trainer, optional
from grbench.registry.attributes import history_length
from grbench.training.state import TrainingResult, TrainState
from grbench.types import Batch, Report

STEPS_BETWEEN_HEAP_TRIMS = 16
"""Free heap memory is given back to the system so often: steps take blocks of different sizes, and the fragmented heap
would grow by some MB a step."""

Validate = Callable[[], Mapping[str, float]]
"""Scores of the encoder as it stands, by metric name."""

Checkpoint = Callable[[TrainState], None]
"""Called after every step and every epoch, to save `state.state_dict()`."""


def train(
    state: TrainState,
    *,
    report: Report = no_report,
    meter: Meter | None = None,
    validate: Validate | None = None,
    higher_is_better: bool = True,
    epochs_after: int = 0,
    throughput: Throughput | None = None,
    checkpoint: Checkpoint | None = None,
    log_every: Collection[int] = (),
) -> TrainingResult:
    """Trains the state's encoder in place; with validation it ends in its best state. The same seed gives the same
    numbers, and so does a state that was loaded from a checkpoint.

    higher_is_better: which way the metric goes that chooses the best state. epochs_after: of later stages, which with
    this one share a `throughput`. log_every: `report("step", ...)` is called with the losses of each step whose number
    over all stages is a multiple of one of these.
    Raises DataError where there is nothing to learn from, RunError (epoch and step named) when a loss is no longer a
    number, and where the trainer's step does not return what `Trainer.step` says.
    """
    options, meter = state.options, meter or Meter(state.device)
    throughput = throughput or Throughput(state.device)
    state.begin()
    if state.name:
        report = partial(report, what=f"train {state.name}")
    named = {"stage": state.name} if state.name else {}
    last = state.first_epoch + options.epochs - 1
    warm_up: int | None = None

    while state.epoch <= last and not state.best.is_stale(options.patience):
        examples = examples_of(state)
        state.steps = examples.num_batches(options.batch_size)
        if warm_up is None:
            warm_up = min(WARM_UP_STEPS, state.steps * options.epochs // 10)
            throughput.warm_up(warm_up)
        state.train()
        monitor = EpochMonitor(
            state.epoch,
            last + epochs_after,
            state.steps,
            totals=state.totals,
            throughput=throughput,
            report=report,
            trainer=type(state.trainer).__name__,
            steps_before=state.total_steps - state.step,
            log_every=log_every,
        )
        with meter.phase("train") as phase:
            throughput.resume()
            exchanging = state.ranks.communication_seconds()
            for batch in batches_of(state, examples):
                state.step += 1
                with counted_flops(state, warm_up), own_random_numbers(state):
                    values = state.trainer.step(state, batch.to(state.device, non_blocking=True))
                values = state.ranks.mean(values)
                state.steps_run += 1
                if state.step % STEPS_BETWEEN_HEAP_TRIMS == 0:
                    return_freed_memory()
                monitor.step(state.step, batch, values, size_of_batch(state, examples))
                if checkpoint:
                    checkpoint(state)
            state.curve.append({**named, "epoch": state.epoch, **monitor.report_means(state.step)})
            throughput.pause()
            check_alike(state.encoder, state.ranks)
            phase.note(**throughput.rates())
            if not state.ranks.alone:
                spent = state.ranks.communication_seconds() - exchanging
                phase.note(communication_seconds=phase.notes.get("communication_seconds", 0.0) + spent)
        if validate is not None and options.validate_every and len(state.curve) % options.validate_every == 0:
            state.eval()
            with meter.phase("validate"), torch.no_grad():
                scores = dict(validate())
            state.curve[-1].update(scores)
            report("validate", **monitor.position(state.step), **scores)
            state.best.see(state.epoch, scores, state.encoder, select=options.select, higher_is_better=higher_is_better)
        state.epoch, state.step, state.totals = state.epoch + 1, 0, {}
        if checkpoint:
            checkpoint(state)

    state.eval()
    state.best.restore(state.encoder)
    optional(state.trainer, Trainer.finish)(state)
    return TrainingResult(
        curve=state.curve,
        epochs_run=len(state.curve),
        steps_run=state.steps_run,
        best_epoch=state.best.epoch,
        best_score=state.best.score,
        stopped_early=len(state.curve) < options.epochs,
        parameters=count_parameters(state.modules),
        flops_per_step=state.flops_per_step,
        **throughput.rates(),
    )


def examples_of(state: TrainState) -> Examples:
    """What the running epoch trains on, as the trainer has it; raises DataError where that is nothing."""
    data, length = state.data, history_length(state.encoder)
    examples = optional(state.trainer, Trainer.examples)(data, length, state.seed, state.epoch)
    if examples is None:
        examples = newest_events(data, seed=state.seed, epoch=state.epoch)
    if not len(examples):
        raise DataError(
            f"nothing to train on: none of the {len(data.users)} training users has "
            + ("an event" if data.first_target == 1 else "two events, one to learn from and one to learn")
            + "; check the dataset and the protocol"
        )
    return examples


def batches_of(state: TrainState, examples: Examples) -> Iterator[Batch]:
    """The running epoch's batches that are not done yet."""
    return training_batches(
        state.data,
        examples,
        history_length=history_length(state.encoder),
        batch_size=state.options.batch_size,
        first=state.step,
        workers=state.options.workers,
        pin_memory=state.device.type == "cuda",
        part=state.ranks.part(state.options.batch_size),
    )


def size_of_batch(state: TrainState, examples: Examples) -> tuple[int, int] | None:
    """Users with a history and events of the batch that was done last, where this process has read a part of it."""
    if state.ranks.alone:
        return None
    batch_size = state.options.batch_size
    batch = slice((state.step - 1) * batch_size, state.step * batch_size)
    return examples.users_and_events(batch, history_length(state.encoder))


def own_random_numbers(state: TrainState) -> AbstractContextManager[None]:
    """A context for a step: where several devices train, each draws for its own users."""
    return state.ranks.step(state.seed, state.total_steps, gathers=state.options.gather_targets)


@contextmanager
def counted_flops(state: TrainState, warm_up: int) -> Iterator[None]:
    """Counts the operations of a stage's first step into the state, where that step is not timed.

    A counted step is slow and never compiled, so it has to be a warm-up step; compilation then needs the next.
    """
    if state.steps_run or warm_up <= int(state.options.compile):
        yield
        return
    with torch.compiler.set_stance("force_eager"), FlopCount() as count:
        yield
    state.flops_per_step = count.flops


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
