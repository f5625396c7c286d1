"""Checks of optimizers, which update a small encoder and its loss."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from grbench.errors import first_line
from grbench.interfaces import TrainEvalOptimizer
from grbench.testing.checks.check import CheckSkippedError, KindChecks, require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.steps import begun, copied, differing, steps, through_a_checkpoint
from grbench.training.update import set_learning_rate

CHECKS = KindChecks("optimizers")


class _TrainedModule(nn.Module):
    """A table, a map, a vector, a parameter without a gradient, and one that is frozen."""

    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(9, 4, sparse=sparse)
        self.map = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.unused = nn.Parameter(torch.ones(4))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self) -> torch.Tensor:
        rows: torch.Tensor = self.map(self.table(torch.arange(1, 5)))
        return (self.scale * rows - 1).square().mean()


def _update(optimizers: list[Optimizer], module: _TrainedModule) -> None:
    module().backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _train(optimizers: list[Optimizer]) -> None:
    for optimizer in optimizers:
        if isinstance(optimizer, TrainEvalOptimizer):
            optimizer.train()


@CHECKS.add(
    means="A parameter is never trained, or is updated twice a step.",
    mend="Put every parameter with requires_grad into exactly one group of one optimizer.",
)
def covers_every_parameter(plugin: CheckedPlugin) -> None:
    """Each parameter that learns, once."""
    module = _TrainedModule()
    optimizers = plugin.make(module)
    require(
        isinstance(optimizers, list | tuple) and all(isinstance(each, Optimizer) for each in optimizers),
        "the factory does not make a list of torch.optim.Optimizer",
    )
    names = {parameter: name for name, parameter in module.named_parameters()}
    owned = [
        names.get(each) for optimizer in optimizers for group in optimizer.param_groups for each in group["params"]
    ]
    missing = [name for each, name in names.items() if each.requires_grad and name not in owned]
    require(not missing, f"no optimizer has {', '.join(missing)}")
    twice = sorted({str(name) for name in owned if owned.count(name) > 1})
    require(not twice, f"{', '.join(twice)} is in several groups")


@CHECKS.add(
    means="Training leaves weights as they are, or changes what no loss has asked for.",
    mend="Update each parameter that has a gradient in every step, and no other.",
)
def moves_what_has_a_gradient(plugin: CheckedPlugin) -> None:
    """After a step."""
    module = _TrainedModule()
    optimizers = plugin.make(module)
    before = copied(dict(module.named_parameters()))
    _train(optimizers)
    _update(optimizers, module)
    moved = {*differing(before, dict(module.named_parameters()))}
    learning = {name for name in before if name not in ("unused", "frozen")}
    require(learning <= moved, f"{', '.join(sorted(learning - moved))} does not move, although it has a gradient")
    require(moved <= learning, f"{', '.join(sorted(moved - learning))} moves without a gradient")


@CHECKS.add(
    means="Training makes the loss larger.",
    mend="Subtract the gradient, and choose a default learning rate at which training converges.",
)
def lowers_the_loss(plugin: CheckedPlugin) -> None:
    """After twenty steps on the same data."""
    module = _TrainedModule()
    optimizers = plugin.make(module)
    _train(optimizers)
    before = module().item()
    for _ in range(20):
        _update(optimizers, module)
    after = module().item()
    require(after < before, f"the loss goes from {before:.4g} to {after:.4g} in twenty steps")


@CHECKS.add(
    means="Warm-up and schedules of the learning rate have no effect.",
    mend="Read the learning rate of each group (`group['lr']`) in every step, and scale decoupled weight decay by it.",
)
def follows_the_learning_rate(plugin: CheckedPlugin) -> None:
    """At a rate of zero nothing moves."""
    module = _TrainedModule()
    optimizers = plugin.make(module)
    before = copied(dict(module.named_parameters()))
    _train(optimizers)
    set_learning_rate(optimizers, 0.0)
    _update(optimizers, module)
    moved = differing(before, dict(module.named_parameters()))
    require(not moved, f"with a learning rate of 0, {', '.join(moved)} moves")


@CHECKS.add(
    means="Encoders with sparse tables (`sparse: true`) are not trained by it.",
    mend="Give tables with sparse gradients to an optimizer that takes them, such as torch.optim.SparseAdam, or refuse "
    "them with a message.",
)
def sparse_tables(plugin: CheckedPlugin) -> None:
    """A table whose gradient is sparse moves, or is refused."""
    module = _TrainedModule(sparse=True)
    before = copied(dict(module.named_parameters()))
    try:
        optimizers = plugin.make(module)
        _train(optimizers)
        _update(optimizers, module)
    except Exception as error:
        if "sparse" in str(error).lower():
            raise CheckSkippedError(f"it refuses sparse gradients: {first_line(error)}") from error
        raise
    stays = {"table.weight", "map.weight", "scale"} - {*differing(before, dict(module.named_parameters()))}
    require(not stays, f"where a table has sparse gradients, {', '.join(sorted(stays))} does not move")


@CHECKS.add(
    means="A run that is interrupted goes on with other numbers than one that is not.",
    mend="Keep moments and counters in `self.state` or `self.param_groups`, which state_dict saves; attributes are not "
    "saved.",
)
def state_saves(plugin: CheckedPlugin) -> None:
    """A checkpoint after two steps, and another two."""
    state = begun(plugin.make_state())
    steps(state, 2)
    saved = through_a_checkpoint(state.state_dict())
    steps(state, 2)
    other = begun(plugin.make_state(encoder=plugin.make_encoder(seed=1)))
    other.load_state_dict(saved)
    steps(other, 2)
    unequal = differing(dict(state.modules.named_parameters()), dict(other.modules.named_parameters()))
    require(not unequal, f"two steps from a checkpoint give other values of {', '.join(unequal)}")


@CHECKS.add(
    means="After a validation, training goes on from other weights than before it.",
    mend="Let train() restore what eval() has replaced.",
)
def evaluation_and_back(plugin: CheckedPlugin) -> None:
    """Of an optimizer with train() and eval()."""
    module = _TrainedModule()
    optimizers = plugin.make(module)
    switched = [each for each in optimizers if isinstance(each, TrainEvalOptimizer)]
    skip_unless(switched, "it has no train() and eval()")
    for _ in range(3):
        _train(optimizers)
        _update(optimizers, module)
    before = copied(dict(module.named_parameters()))
    for optimizer in switched:
        optimizer.eval()
        optimizer.train()
    now = dict(module.named_parameters())
    unequal = [name for name, value in before.items() if not torch.allclose(value, now[name], atol=1e-6)]
    require(not unequal, f"eval() and train() change {', '.join(unequal)}")
