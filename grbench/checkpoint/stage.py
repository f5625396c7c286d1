"""The content of a checkpoint: one stage of training, saved as plain values and tensors.

No cell's identity includes this room: going on from a checkpoint gives the same numbers as training without a break, so
that another format of checkpoints makes no other experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from grbench.checkpoint.generators import generator_states, restore_generators
from grbench.checkpoint.tokenizer import codes_that_were_saved, codes_to_save
from grbench.distributed.whole import apart, optimizer_state, state_of, together
from grbench.errors import RunError, first_line
from grbench.interfaces import Trainer, optional
from grbench.types import Codes

if TYPE_CHECKING:
    from grbench.training.state import TrainState


class UnusableCheckpointError(RunError):
    """A checkpoint does not hold what the training that would go on from it consists of."""


def saved_stage(state: TrainState) -> dict[str, Any]:
    """What `TrainState.state_dict` returns. Tensors are not copied."""
    best = state.best
    gradients = {name: each.grad for name, each in state.modules.named_parameters() if each.grad is not None}
    modules = state.modules
    optimizers = [(each.state_dict(), each) for each in state.optimizers]
    return {
        "stage": state.stage,
        "codes": codes_to_save(state.codes),
        "finished": [asdict(result) for result in state.finished],
        "epoch": state.epoch,
        "step": state.step,
        "steps": state.steps,
        "steps_run": state.steps_run,
        "totals": {name: [total, steps] for name, (total, steps) in state.totals.items()},
        "curve": state.curve,
        "flops_per_step": state.flops_per_step,
        "best": {
            "epoch": best.epoch,
            "score": best.score,
            "since": best.since,
            "encoder": state_of(best.encoder, modules, together, prefix="encoder."),
        },
        "modules": state_of(modules.state_dict(), modules, together),
        "gradients": state_of(gradients, modules, together),
        "optimizers": [optimizer_state(saved, each, modules, together) for saved, each in optimizers],
        "scaler": state.scaler.state_dict(),
        "trainer": optional(state.trainer, Trainer.state_dict)(),
        "generators": generator_states(state.device),
    }


def load_stage(state: TrainState, saved: Mapping[str, Any]) -> None:
    """Sets the state to what `saved_stage` returned; the state is begun first if it is not yet. Tensors are taken over.

    Raises ValueError where `saved` is of another stage, and UnusableCheckpointError where its parts are others: the
    state cannot be used then.
    """
    if saved["stage"] != state.stage:
        raise ValueError(f"the checkpoint is of stage {saved['stage']}, and this is stage {state.stage}")
    state.begin()
    try:
        _load(state, saved)
    except Exception as error:  # torch and plug-ins raise of all kinds where a state is not theirs
        raise UnusableCheckpointError(first_line(error)) from error


def _load(state: TrainState, saved: Mapping[str, Any]) -> None:
    state.epoch, state.step, state.steps = saved["epoch"], saved["step"], saved["steps"]
    state.steps_run, state.flops_per_step = saved["steps_run"], saved["flops_per_step"]
    state.totals = {name: (total.to(state.device), steps) for name, (total, steps) in saved["totals"].items()}
    state.curve = [dict(row) for row in saved["curve"]]
    best = saved["best"]
    state.best.epoch, state.best.score, state.best.since = best["epoch"], best["score"], best["since"]
    modules = state.modules
    state.best.encoder = state_of(best["encoder"], modules, apart, prefix="encoder.")
    modules.load_state_dict(state_of(saved["modules"], modules, apart))
    gradients = state_of(saved["gradients"], modules, apart)
    for name, parameter in modules.named_parameters():
        gradient = gradients.get(name)
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
    for optimizer, each in zip(state.optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(optimizer_state(each, optimizer, modules, apart))
    state.scaler.load_state_dict(saved["scaler"])
    optional(state.trainer, Trainer.load_state_dict)(saved["trainer"])
    restore_generators(saved["generators"], state.device)


def saved_results(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields of the TrainingResult of each stage before the saved one."""
    return [dict(result) for result in saved["finished"]]


def saved_codes(saved: Mapping[str, Any]) -> Codes:
    """The items' codes with which the saved stage began."""
    return codes_that_were_saved(saved["codes"])
