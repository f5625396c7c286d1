"""The keys of a method's `training:` section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from grbench.registry.option_types import Count, Natural, Share

VALIDATION_ONLY = ("select", "patience", "validation_users")
"""Keys that only validation reads."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How long, how large, how precise.

    Args:
        epochs: passes over the training users.
        batch_size: users a step.
        precision: fp32, or bf16 / fp16 by autocast; losses, tables and optimizer states stay fp32. Either
            is several times slower on a CPU that lacks units for it.
        accumulate: batches whose gradients are averaged before an update.
        clip_norm: largest gradient norm; null = not clipped.
        compile: torch.compile the training step.
        schedule: of the learning rate after the warm-up: constant, or down to `final_rate` by a cosine or a line.
        final_rate: share of the learning rate that a schedule ends with.
        warmup_steps: updates over which the learning rate rises from zero.
        warmup_share: the same as a share of the stage's updates, at least one, in place of warmup_steps; 0 = not used.
        workers: threads that read batches ahead.
        devices: GPUs, or processes on a CPU, that share each batch, the evaluated users and, by `shard_tables`, the
            tables; the method's, not a stage's.
        gather_targets: with several devices, in-batch negatives and memory banks are made of the whole batch's targets,
            so that the numbers do not depend on how many devices there are; false = of the device's own part.
        shard_tables: rows from which on an embedding table is divided among the devices by rows; null = each device
            has all tables.
        validate_every: epochs between validations; null or 0 = none, and the last state is kept.
        validation_users: how many of the validation users are scored, a random sample that is the same for all methods
            and seeds; null = all.
        select: the metric of the suite whose best state is kept.
        patience: validations without a better score before training stops; null = it goes on.
    """

    epochs: Count = 10
    batch_size: Count = 512
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: Count = 1
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    compile: bool = False
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup_steps: Natural = 0
    warmup_share: Share = 0.0
    workers: Natural = 1
    devices: Count = 1
    gather_targets: bool = True
    shard_tables: Count | None = None
    validate_every: Natural | None = None
    validation_users: Count | None = None
    select: str = "ndcg@10"
    patience: Count | None = None
