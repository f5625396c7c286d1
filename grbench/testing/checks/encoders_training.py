"""Checks of what training makes of an encoder: gradients, seeds, checkpoints, devices, precision.

Shapes: B users, T history length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from grbench.errors import SuiteError
from grbench.interfaces import Decoder, Embedder, Encoder, optional
from grbench.testing.checks.check import require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.encoders import CHECKS, batch_for, stirred
from grbench.testing.checks.half_precision import half_precision as in_half_precision
from grbench.testing.checks.other_device import OTHER, OtherDevice
from grbench.testing.checks.outputs import evaluated, outputs_of, require_same
from grbench.testing.checks.steps import (
    begun,
    copied,
    differing,
    steps,
    sum_of_losses,
    tensors_of,
    through_a_checkpoint,
)
from grbench.training.numerics import seed_everything
from grbench.types import Batch

LISTED = 4


def _outputs(encoder: nn.Module, batch: Batch) -> list[Tensor]:
    """States, vectors and code logits, as far as the encoder gives them."""
    found: list[Tensor] = []
    if isinstance(encoder, Embedder):
        states, vectors = encoder.embed(batch, torch.arange(1, 41))
        found += [states[:, -batch.items.shape[1] :], vectors]
    if isinstance(encoder, Decoder):
        found += encoder.code_logits(batch)
    return found


def _learns(encoder: nn.Module) -> None:
    skip_unless(any(each.requires_grad for each in encoder.parameters()), "it has nothing to learn")


@torch.no_grad()
def _accepts(loss: nn.Module, encoder: nn.Module, batch: Batch) -> bool:
    """Whether the encoder's options are those that the loss asks for; it says otherwise by a SuiteError."""
    try:
        loss(encoder, batch)
    except SuiteError:
        return False
    return True


@CHECKS.add(
    means="A parameter never changes: it is made and counted, and does nothing.",
    mend="Use it, remove it, or freeze it by requires_grad_(False); look for .detach(), torch.no_grad and argmax.",
)
def every_parameter_learns(plugin: CheckedPlugin) -> None:
    """Each gets a gradient from all outputs together, and from the losses that ask for further ones."""
    encoder = stirred(plugin).train()
    _learns(encoder)
    batch = batch_for(plugin, encoder, rows=32)
    generator = torch.Generator().manual_seed(0)
    objective = torch.zeros(())
    with optional(encoder, Encoder.one_pass)() as own_terms:
        for value in _outputs(encoder, batch):
            objective = objective + (torch.randn(value.shape, generator=generator) * value.nan_to_num(neginf=0.0)).sum()
        objective = sum(own_terms().values(), objective)
    losses = [loss for loss in plugin.further_losses(encoder) if _accepts(loss, encoder, batch)]
    if not isinstance(encoder, Embedder | Decoder) or "loss" in plugin.partners:
        losses += plugin.make_losses(encoder)
    if losses:
        objective = objective + sum_of_losses(losses, encoder, batch)
    objective.backward()  # type: ignore[no-untyped-call]
    idle = [
        name
        for name, parameter in encoder.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.to_dense().any())
    ]
    more = f" and {len(idle) - LISTED} more" if len(idle) > LISTED else ""
    require(not idle, f"no gradient reaches {', '.join(idle[:LISTED])}{more}")


@CHECKS.add(
    means="Seeds do not mean what a table says: equal seeds give different models, or all seeds give the same one.",
    mend="Draw from torch's own generators, and never seed them; pass a generator of a fixed seed where you must.",
)
def seed_decides(plugin: CheckedPlugin) -> None:
    """Weights, and a forward pass in training mode."""
    made = []
    for seed in (0, 0, 1):
        encoder = plugin.make_encoder(seed=seed)
        weights = copied(dict(encoder.named_parameters()))
        seed_everything(seed)
        with torch.no_grad():
            made.append((weights, _outputs(encoder.train(), batch_for(plugin, encoder))))
    (one, first), (other, second), (third, _) = made
    unequal = differing(one, other)
    require(not unequal, f"two encoders of one seed differ in {', '.join(unequal[:LISTED])}")
    same = all(torch.equal(mine, theirs) for mine, theirs in zip(first, second, strict=True))
    require(same, "with one seed, two forward passes in training mode differ")
    drawn = [name for name, value in one.items() if value.numel() > 1 and value.min() != value.max()]
    require(not drawn or differing(one, third), "encoders of different seeds have the same weights")


@CHECKS.add(
    means="A run that is interrupted goes on with other numbers than one that is not.",
    mend="Keep all that training changes in parameters and persistent buffers; a buffer with persistent=False and an "
    "attribute are not saved.",
)
def saves_and_loads(plugin: CheckedPlugin) -> None:
    """A checkpoint after two steps, loaded by an encoder of another seed, and another two steps."""
    encoder = plugin.make_encoder()
    _learns(encoder)
    state = begun(plugin.make_state(seed=0, encoder=encoder))
    outputs = outputs_of(plugin, state.encoder)
    batch = batch_for(plugin, state.encoder)
    steps(state, 2)
    saved = through_a_checkpoint(state.state_dict())
    before = evaluated(outputs, state.encoder, batch)
    steps(state, 2)
    after = evaluated(outputs, state.encoder, batch)
    other = begun(plugin.make_state(seed=0, encoder=plugin.make_encoder(seed=1)))
    other.load_state_dict(saved)
    require_same(before, evaluated(outputs, other.encoder, batch), "once a checkpoint is loaded", exact=True)
    other.load_state_dict(saved)  # what was evaluated may have drawn random numbers
    steps(other, 2)
    when = "after two more steps from a checkpoint"
    require_same(after, evaluated(outputs, other.encoder, batch), when, exact=True)


@CHECKS.add(
    means="The encoder fails on a GPU, or anywhere but on the device that it was made on.",
    mend="Register tensors as buffers (`register_buffer`), make new ones on the device of the batch (`device=batch."
    "items.device`), and call .cpu() before numpy.",
)
def moves_between_devices(plugin: CheckedPlugin) -> None:
    """On a device that only looks like one, with the numbers of the CPU."""
    encoder = stirred(plugin)
    batch, outputs = batch_for(plugin, encoder), outputs_of(plugin, encoder)
    skip_unless(isinstance(encoder, Embedder | Decoder), "what its retriever needs is not moved")
    here = evaluated(outputs, encoder, batch)
    with OtherDevice():
        there = evaluated(outputs, encoder.to(OTHER), batch.to(OTHER))
        back = [{name: value.cpu() for name, value in row.items()} for row in there]
    require_same(here, back, "on another device")


@CHECKS.add(
    means="Training with `precision: bf16` or `fp16` fails, or learns from numbers that are not finite.",
    mend="Let rows that are written into a tensor have its type (`.to(tensor.dtype)`), and compute exponents, norms "
    "and large sums in float32.",
)
def half_precision(plugin: CheckedPlugin) -> None:
    """GivesOutputs near those in full precision, and finite gradients."""
    encoder = stirred(plugin).eval()
    skip_unless(isinstance(encoder, Embedder | Decoder), "it is neither Embedder nor Decoder")
    batch = batch_for(plugin, encoder)
    with torch.no_grad():
        whole = _outputs(encoder, batch)
    with in_half_precision():
        half = _outputs(encoder, batch)
        for one, other in zip(half, whole, strict=True):
            finite = other.isfinite()
            share = float((one - other)[finite].norm() / other[finite].norm().clamp(min=1e-9))
            require(share < 0.05, f"outputs differ by {share:.2g} of their norm from those in full precision")
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            return
        objective = sum((parameter.float().sum() for parameter in encoder.parameters()), torch.zeros(()))
        for value in _outputs(encoder.train(), batch):
            objective = objective + value.float().nan_to_num(neginf=0.0).sum()
        objective.backward()  # type: ignore[no-untyped-call]
    wrong = [
        name
        for name, parameter in encoder.named_parameters()
        if parameter.grad is not None and not parameter.grad.to_dense().isfinite().all()
    ]
    require(not wrong, f"the gradient of {', '.join(wrong[:LISTED])} is not finite")


@CHECKS.add(
    means="After a training step, validation and search still use what was computed from the weights before it.",
    mend="Keep what depends on weights inside the context fixed_weights() only, and drop it at its end.",
)
def keeps_nothing_of_old_weights(plugin: CheckedPlugin) -> None:
    """After a step of an optimizer in Python and of a fused one."""
    require_nothing_kept(plugin, lambda encoder: [torch.optim.SGD(_learning(encoder), lr=0.1)])
    if not any(getattr(module, "sparse", False) for module in plugin.make_encoder().modules()):
        require_nothing_kept(plugin, lambda encoder: [torch.optim.AdamW(_learning(encoder), lr=0.1, fused=True)])


def require_nothing_kept(plugin: CheckedPlugin, optimizers_of: Callable[[nn.Module], Sequence[Optimizer]]) -> None:
    """Searched, trained by one step, and searched again: the same as a new encoder with these weights."""
    encoder, fresh = plugin.make_encoder(), plugin.make_encoder()
    _learns(encoder)
    batch, outputs = batch_for(plugin, encoder), outputs_of(plugin, encoder)
    optimizers = optimizers_of(encoder)
    evaluated(outputs, encoder, batch)
    weights = copied(dict(encoder.named_parameters()))
    sum_of_losses(plugin.make_losses(encoder), encoder.train(), batch).backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        optimizer.step()
    require(differing(weights, dict(encoder.named_parameters())), "a step of training changes no weight")
    fresh.load_state_dict(encoder.state_dict())
    own, expected = (evaluated(outputs, each, batch) for each in (encoder, fresh))
    require_same(own, expected, "from that of a new encoder with the weights of now", exact=True)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.data.mul_(1.5)
        fresh.load_state_dict(encoder.state_dict())
        expected = outputs(fresh.eval(), batch)
        when = "from that of a new encoder, once the context fixed_weights is left"
        require_same(outputs(encoder.eval(), batch), expected, when, exact=True)


def _learning(encoder: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in encoder.parameters() if parameter.requires_grad]


@CHECKS.add(
    means="An encoder that is evaluated changes, so that training with validation gives other numbers than without.",
    mend="Write to no parameter, buffer or batch in evaluation mode, draw no random numbers, and leave train() and "
    "eval() to the caller.",
)
def eval_is_pure(plugin: CheckedPlugin) -> None:
    """Weights, buffers, batch, modes and random generators stay."""
    encoder = stirred(plugin).eval()
    batch, outputs = batch_for(plugin, encoder), outputs_of(plugin, encoder)
    weights, columns = copied(tensors_of(encoder)), copied(vars(batch))
    generator = torch.get_rng_state()
    with torch.no_grad():
        outputs(encoder, batch)
    changed = differing(weights, tensors_of(encoder)) + differing(columns, vars(batch))
    require(not changed, f"it changes {', '.join(changed[:LISTED])}")
    require(torch.equal(generator, torch.get_rng_state()), "it draws random numbers")
    require(not any(module.training for module in encoder.modules()), "it puts a module into training mode")


@CHECKS.add(
    means="The same model gives other lists each time it is searched.",
    mend="Switch dropout and sampling off in evaluation mode (`self.training`).",
)
def eval_is_deterministic(plugin: CheckedPlugin) -> None:
    """Twice, with other states of the random generators."""
    encoder = stirred(plugin)
    batch, outputs = batch_for(plugin, encoder), outputs_of(plugin, encoder)
    seed_everything(0)
    one = evaluated(outputs, encoder, batch)
    seed_everything(1)
    require_same(one, evaluated(outputs, encoder, batch), "when it is computed a second time", exact=True)
