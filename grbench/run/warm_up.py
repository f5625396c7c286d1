"""Stages of training that end before the warm-up of their learning rate does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from grbench.data.examples import newest_events
from grbench.interfaces import Trainer, optional
from grbench.training.options import TrainingOptions
from grbench.training.stages import targets_of

if TYPE_CHECKING:
    from grbench.data.split import Split
    from grbench.registry.discovery import Registry
    from grbench.suite.method import Method


def long_warm_ups(method: Method, registry: Registry, split: Split) -> Iterator[str]:
    """A sentence on each stage whose learning rate never reaches its full value, with its key in the suite.

    Updates are counted as `TrainState` does, of all examples that the trainer may have: an encoder that does not learn
    users' first events may have a few less. Stages whose trainer needs a history length that the encoder has no option
    for are left out.
    """
    for number, stage in enumerate(method.stages):
        options = TrainingOptions(**stage.training)
        length = method.encoder.options.get("history_length", 0)
        if not options.warmup_steps or type(length) is not int:
            continue
        data = targets_of(stage, split.training, f"stages.{number}.targets").with_first_events()
        trainer = registry.build("trainers", stage.trainer)
        examples = optional(trainer, Trainer.examples)(data, length, 0, 1)
        if examples is None:
            examples = newest_events(data, seed=0, epoch=1)
        batches = examples.num_batches(options.batch_size)
        updates = options.epochs * -(-batches // options.accumulate)
        if options.warmup_steps > updates:
            yield (
                f"methods.{method.name}.{method.training_key(number)}.warmup_steps: {options.warmup_steps:,} are more "
                f"than the stage's {updates:,} updates, so that the learning rate never reaches its full value; give "
                "fewer, or a warmup_share"
            )
