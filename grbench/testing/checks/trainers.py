"""Checks of trainers, which train a small encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

import numpy as np
import torch
from torch import Tensor

from grbench.cost.monitor import RESERVED_NAMES
from grbench.data.examples import Examples
from grbench.interfaces import Trainer, optional
from grbench.registry.attributes import history_length
from grbench.testing.checks.check import KindChecks, require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.steps import begun, copied, differing, steps, through_a_checkpoint
from grbench.training.loop import train
from grbench.training.state import TrainState

CHECKS = KindChecks("trainers")


@CHECKS.add(
    base=True,
    means="Training stops, since the training curve cannot be drawn.",
    mend="Return at least one finite scalar by name, such as {'loss': loss}; the names of the loop's own columns are "
    "taken.",
)
def gives_its_loss(plugin: CheckedPlugin) -> None:
    """Named finite scalars."""
    (values,) = steps(begun(plugin.make_state()), 1)
    require(isinstance(values, Mapping) and values, f"step returns {type(values).__name__}, not scalars by name")
    for name, value in values.items():
        require(name not in RESERVED_NAMES, f"{name} is the name of a column of the training loop")
        require(np.ndim(value.detach() if isinstance(value, Tensor) else value) == 0, f"{name} is no scalar")
        require(np.isfinite(float(value)), f"{name} is {float(value)}")


@CHECKS.add(
    means="Nothing is learnt.",
    mend="Call state.backward(loss) and state.update().",
)
def updates_the_encoder(plugin: CheckedPlugin) -> None:
    """Within a few steps."""
    state = begun(plugin.make_state())
    before = copied(dict(state.encoder.named_parameters()))
    steps(state, 3)
    require(differing(before, dict(state.encoder.named_parameters())), "three steps leave the encoder as it is")


@CHECKS.add(
    means="Learning rate, warm-up, schedule or clipping of the method's options have no effect.",
    mend="Update by state.update() alone, which applies them, and never by an optimizer's own step().",
)
def updates_by_the_state(plugin: CheckedPlugin) -> None:
    """Where state.update() does nothing, nothing moves."""
    state = begun(plugin.make_state())
    calls: list[int] = []
    state.update = lambda: calls.append(state.step)  # type: ignore[method-assign]
    before = copied(dict(state.encoder.named_parameters()))
    steps(state, 2)
    moved = differing(before, dict(state.encoder.named_parameters()))
    require(not moved, f"{', '.join(moved)} is updated without state.update()")


@CHECKS.add(
    means="A run that is interrupted goes on with other numbers than one that is not, or cannot go on.",
    mend="Return what the trainer has come to from state_dict, take it over in load_state_dict, and put modules into "
    "state.modules in start.",
)
def resumes(plugin: CheckedPlugin) -> None:
    """Stopped within an epoch and at its end, with a checkpoint file between, in new objects."""
    whole = plugin.make_state(batch_size=32)
    result = train(whole)
    for after in (2, None):
        stopped = begun(plugin.make_state(batch_size=32))
        saved = _stopped(stopped, after)
        resumed = plugin.make_state(batch_size=32, encoder=plugin.make_encoder(seed=1))
        resumed.load_state_dict(saved)
        again = train(resumed)
        where = "within an epoch" if after else "at the end of an epoch"
        unequal = differing(dict(whole.modules.named_parameters()), dict(resumed.modules.named_parameters()))
        require(not unequal, f"stopped {where}, {', '.join(unequal[:3])} ends otherwise")
        losses = [[row.get("loss") for row in each.curve] for each in (result, again)]
        require(losses[0] == losses[1], f"stopped {where}, the losses by epoch are {losses[1]}, not {losses[0]}")


def _stopped(state: TrainState, after: int | None) -> Mapping[str, object]:
    """What a checkpoint holds after so many steps, or after the first epoch (None)."""
    saved: list[Mapping[str, object]] = []

    def keep(now: TrainState) -> None:
        at_end = now.epoch > now.first_epoch and now.step == 0
        if not saved and (now.total_steps == after if after else at_end):
            saved.append(through_a_checkpoint(now.state_dict()))

    train(state, checkpoint=keep)
    return saved[0]


@CHECKS.add(
    means="Two runs of one seed give different tables.",
    mend="Draw from torch's own generators, which are seeded and saved.",
)
def seed_decides(plugin: CheckedPlugin) -> None:
    """Two trainings of one seed."""
    ends = []
    for _ in range(2):
        state = begun(plugin.make_state())
        steps(state, 3)
        ends.append(dict(state.modules.named_parameters()))
    unequal = differing(*ends)
    require(not unequal, f"two trainings of one seed differ in {', '.join(unequal[:3])}")


@CHECKS.add(
    means="The loop reads events that are not there, or a run that goes on from a checkpoint trains on other examples.",
    mend="Let examples depend on its arguments only, with rows of the data and stops from data.first_target to the "
    "row's length.",
)
def examples_are_ranges_of_events(plugin: CheckedPlugin) -> None:
    """The same for the same epoch, and within the histories."""
    state = plugin.make_state()
    data, length = state.data, history_length(state.encoder)
    one, other = (optional(plugin.make(), Trainer.examples)(data, length, 0, 1) for _ in range(2))
    skip_unless(one is not None, "it leaves them to the loop")
    assert isinstance(one, Examples)
    assert isinstance(other, Examples)
    same = all(np.array_equal(mine, theirs) for mine, theirs in zip(astuple(one), astuple(other), strict=True))
    require(same, "two calls for the same epoch give different examples")
    require(len(one), "there is no example")
    require(((one.rows >= 0) & (one.rows < len(data.users))).all(), "a row is none of the training data")
    least, most = data.first_target, data.lengths[one.rows]
    require(
        ((one.stops >= least) & (one.stops <= most)).all(), "a stop is not from data.first_target to the row's length"
    )


@CHECKS.add(
    means="What the encoder learns depends on gradients of another step.",
    mend="End each step without gradients that wait, or with those of batches that are accumulated by the options "
    "only.",
)
def leaves_no_gradients(plugin: CheckedPlugin) -> None:
    """After a step none waits."""
    state = begun(plugin.make_state())
    steps(state, 1)
    waiting = [
        name
        for name, each in state.encoder.named_parameters()
        if each.grad is not None and bool(torch.any(each.grad != 0))
    ]
    require(not waiting, f"after a step, gradients of {', '.join(waiting[:3])} wait")
