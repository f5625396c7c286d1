"""Checks of losses, with an encoder that has the interfaces which they need.

Shapes: B users, T history length, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grbench.interfaces import Embedder, Encoder, Loss, optional
from grbench.registry.attributes import history_length
from grbench.testing.checks.check import KindChecks, require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.half_precision import half_precision as in_half_precision
from grbench.testing.checks.other_device import OTHER, OtherDevice
from grbench.testing.checks.steps import begun, steps, through_a_checkpoint
from grbench.training.numerics import seed_everything
from grbench.types import Batch

CHECKS = KindChecks("losses")

DRAWS = 4
"""Over so many seeds the values of a loss that samples are averaged."""
LOOSE = 1.5
"""By which factor such means may be apart."""


@dataclasses.dataclass(frozen=True)
class _Taught:
    """A loss with its encoder and a batch of it."""

    loss: nn.Module
    encoder: nn.Module
    batch: Batch

    def terms(self, batch: Batch | None = None, *, seed: int = 0) -> Mapping[str, Tensor]:
        seed_everything(seed)
        terms: Mapping[str, Tensor] = self.loss(self.encoder, self.batch if batch is None else batch)
        return terms

    def total(self, batch: Batch | None = None, *, seed: int = 0) -> Tensor:
        return torch.stack([term.float() for term in self.terms(batch, seed=seed).values()]).sum()

    def mean(self, batch: Batch) -> float:
        with torch.no_grad():
            return sum(self.total(batch, seed=seed).item() for seed in range(DRAWS)) / DRAWS


def _taught(plugin: CheckedPlugin, *, rows: int = 16) -> _Taught:
    encoder = plugin.make_encoder().train()
    (loss,) = plugin.make_losses(encoder)
    optional(loss, Loss.start_stage)("", 0)
    first = optional(encoder, Encoder.predicts_first_event)()
    return _Taught(loss, encoder, plugin.world.batch(history_length(encoder), first_events=first, rows=rows))


def _empty_rows(batch: Batch, rows: int) -> Batch:
    """Rows that fill an epoch's last batch: nothing but 0."""
    return dataclasses.replace(
        batch,
        **{
            field.name: torch.zeros_like(getattr(batch, field.name)[:1]).repeat_interleave(rows, 0)
            for field in dataclasses.fields(batch)
        },
    )


def _joined(*batches: Batch) -> Batch:
    return Batch(*(torch.cat([getattr(batch, field.name) for batch in batches]) for field in dataclasses.fields(Batch)))


@CHECKS.add(
    base=True,
    means="The harness cannot tell which encoders the loss fits, or cannot train it.",
    mend="Inherit from nn.Module, and set the class attribute `needs` to a tuple of interfaces, such as (Embedder,).",
)
def interface(plugin: CheckedPlugin) -> None:
    """A module that says what it needs."""
    loss = _taught(plugin).loss
    require(isinstance(loss, nn.Module), f"the factory makes a {type(loss).__name__}, which is no nn.Module")
    needs = getattr(type(loss), "needs", None)
    right = isinstance(needs, tuple) and all(isinstance(each, type) for each in needs)
    require(right, f"needs is {needs!r}, not a tuple of interfaces")


@CHECKS.add(
    base=True,
    means="Training stops, since the loss is no number.",
    mend="Return {term: scalar}; mask with values that are large and finite, clamp what goes into log and division.",
)
def finite(plugin: CheckedPlugin) -> None:
    """Named scalars."""
    terms = _taught(plugin).terms()
    require(isinstance(terms, Mapping) and terms, f"it returns {type(terms).__name__}, not terms by name")
    for name, term in terms.items():
        require(isinstance(name, str), f"a term is named {name!r}")
        require(isinstance(term, Tensor) and not term.ndim, f"the term {name} is no scalar tensor")
        require(term.isfinite(), f"the term {name} is {term.item()}")


@CHECKS.add(
    means="The encoder learns nothing from the loss, or its weights become NaN.",
    mend="Look for .detach(), argmax and torch.no_grad on the way from the encoder's output to the terms, and for "
    "roots and logarithms of 0.",
)
def teaches_the_encoder(plugin: CheckedPlugin) -> None:
    """Finite gradients, one of which is not zero."""
    taught = _taught(plugin)
    skip_unless(any(each.requires_grad for each in taught.encoder.parameters()), "the encoder has nothing to learn")
    taught.total().backward()  # type: ignore[no-untyped-call]
    gradients = [each.grad.to_dense() for each in taught.encoder.parameters() if each.grad is not None]
    require(all(each.isfinite().all() for each in gradients), "a gradient of the encoder is not finite")
    require(any(each.any() for each in gradients), "no gradient reaches the encoder")


@CHECKS.add(
    means="The rows that fill up an epoch's last batch are learnt from, or make the loss NaN.",
    mend="Take the mean over positions with a target by `sum / max(count, 1)`.",
)
def a_batch_without_targets(plugin: CheckedPlugin) -> None:
    """Nothing but empty rows: the loss is 0, and so is its gradient."""
    taught = _taught(plugin)
    value = taught.total(_empty_rows(taught.batch, 4))
    require(value.item() == 0, f"a batch without targets has a loss of {value.item():.4g}, not 0")
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]
        gradients = [each.grad.to_dense() for each in taught.encoder.parameters() if each.grad is not None]
        require(all(each.isfinite().all() for each in gradients), "its gradient is not finite")


@CHECKS.add(
    means="Positions without a target, such as padding, are learnt from.",
    mend="Multiply each position's loss by `batch.all_targets > 0`, or select these positions.",
)
def positions_without_target_are_masked(plugin: CheckedPlugin) -> None:
    """The gradient of their states is zero."""
    taught = _taught(plugin)
    seen: list[Tensor] = []
    skip_unless(isinstance(taught.encoder, Embedder), "code logits are of positions with a target only")
    embed: Any = taught.encoder.embed

    def watched(batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        states, vectors = embed(batch, items)
        if states.requires_grad:
            states.retain_grad()
        seen.append(states)
        return states, vectors

    taught.encoder.embed = watched  # type: ignore[assignment]
    batch = dataclasses.replace(taught.batch, targets=taught.batch.targets.clone())
    batch.targets[:, -2] = 0  # not only padding: as where an event's action is no target
    taught.total(batch).backward()  # type: ignore[no-untyped-call]
    skip_unless(seen, "it does not call embed, and code logits are of positions with a target only")
    length = batch.items.shape[1]
    for states in (each for each in seen if each.grad is not None):
        assert states.grad is not None
        leaked = states.grad[:, -length:][batch.targets == 0].any()
        require(not leaked, "the state of a position without a target gets a gradient")


@CHECKS.add(
    means="The learning rate means something else for each batch size, and the last batch of an epoch counts "
    "otherwise.",
    mend="Divide by the number of positions with a target; not by nothing, B or B * T.",
)
def a_mean_over_positions(plugin: CheckedPlugin) -> None:
    """With every row four times, and with as many empty rows as there are others, the loss stays near what it is."""
    taught = _taught(plugin)
    value = taught.mean(taught.batch)
    for what, batch in (
        ("with every row of the batch four times", _joined(*[taught.batch] * 4)),
        ("with as many rows without targets", _joined(taught.batch, _empty_rows(taught.batch, 16))),
    ):
        other = taught.mean(batch)
        low, high = sorted((abs(value), abs(other)))
        require(high <= LOOSE * low + 1e-6, f"{what} the loss is {other:.4g}, and {value:.4g} without")


@CHECKS.add(
    means="Two runs of one seed give different tables.",
    mend="Draw negatives from torch's own generators (torch.randint), not from one that nobody seeds.",
)
def seed_decides(plugin: CheckedPlugin) -> None:
    """A new loss with the same seed gives the same."""
    one, other = (_taught(plugin).total().item() for _ in range(2))
    require(one == other, f"with one seed it gives {one:.6g} and {other:.6g}")


@CHECKS.add(
    means="A run that is interrupted goes on with other numbers than one that is not.",
    mend="Keep memory banks and counters in persistent buffers; attributes are not saved.",
)
def saves_and_loads(plugin: CheckedPlugin) -> None:
    """A checkpoint after two steps, and the values of the next two."""
    state = begun(plugin.make_state())
    steps(state, 2)
    saved = through_a_checkpoint(state.state_dict())
    expected = [float(values["loss"]) for values in steps(state, 2)]
    other = begun(plugin.make_state(encoder=plugin.make_encoder(seed=1)))
    other.load_state_dict(saved)
    found = [float(values["loss"]) for values in steps(other, 2)]
    require(found == expected, f"the next losses are {expected}, and {found} from a checkpoint")


@CHECKS.add(
    means="The loss fails on a GPU, or anywhere but on the device that it was made on.",
    mend="Register tensors as buffers, and make new ones on the device of the batch (`device=batch.items.device`).",
)
def moves_between_devices(plugin: CheckedPlugin) -> None:
    """On a device that only looks like one."""
    taught = _taught(plugin)
    taught.encoder.eval()  # dropout may draw its mask on the CPU where there is no GPU
    with torch.no_grad():
        taught.terms()
        with OtherDevice():
            moved = _Taught(taught.loss.to(OTHER), taught.encoder.to(OTHER), taught.batch.to(OTHER))
            values = [term.cpu() for term in moved.terms().values()]
    require(all(value.isfinite() for value in values), "on another device it is not finite")


@CHECKS.add(
    means="Training with `precision: bf16` or `fp16` fails, or learns from numbers that are not finite.",
    mend="Compute logarithms, exponents and sums in float32 (`.float()`), and let rows that are written into a tensor "
    "have its type.",
)
def half_precision(plugin: CheckedPlugin) -> None:
    """Finite values and gradients."""
    taught = _taught(plugin)
    with in_half_precision():
        value = taught.total()
    require(value.isfinite(), "in half precision it is not finite")
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]
    gradients = [each.grad.to_dense() for each in taught.encoder.parameters() if each.grad is not None]
    require(all(each.isfinite().all() for each in gradients), "in half precision a gradient is not finite")
    require(any(each.any() for each in gradients), "in half precision no gradient reaches the encoder")


@CHECKS.add(
    means="A later stage of training is refused, or what should go on from the stage before starts anew.",
    mend="Let survives() name buffers (`named_buffers`) whose shape is the same in all stages.",
)
def survives(plugin: CheckedPlugin) -> None:
    """The names are buffers, before and after a step."""
    taught = _taught(plugin)
    names = optional(taught.loss, Loss.survives)()
    skip_unless(names, "it says that nothing survives a stage")
    buffers = dict(taught.loss.named_buffers())
    unknown = [name for name in names if name not in buffers]
    require(not unknown, f"survives() names {', '.join(unknown)}, which is no buffer")
    shapes = {name: buffers[name].shape for name in names}
    with torch.no_grad():
        taught.terms()
    after = dict(taught.loss.named_buffers())
    moved = [name for name in names if after[name].shape != shapes[name]]
    require(not moved, f"the shape of {', '.join(moved)} changes in a step")
