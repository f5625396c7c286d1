"""Losses, trainers and optimizers with one fault each."""

from __future__ import annotations

import random

import torch
from faulty_parts import fails
from torch import nn
from torch.nn import functional

from grbench.data.examples import Examples
from grbench.interfaces import Embedder
from grbench.testing.checks.plain_parts import PlainLoss, PlainTrainer

# --- losses


@fails("losses", "interface")
class NeedsAName(PlainLoss):
    needs = ("Embedder",)


@fails("losses", "finite")
class OneAPosition(PlainLoss):
    def forward(self, encoder, batch):
        return {"loss": super().forward(encoder, batch)["softmax"].repeat(3)}


@fails("losses", "teaches_the_encoder")
class Detached(PlainLoss):
    def forward(self, encoder, batch):
        return {"loss": super().forward(encoder, batch)["softmax"].detach()}


@fails("losses", "a_batch_without_targets")
class MeanOfNothing(PlainLoss):
    def forward(self, encoder, batch):
        states, vectors = encoder.embed(batch, torch.arange(1, self.num_items + 1))
        targets = batch.targets.flatten() - 1
        return {"loss": functional.cross_entropy((states @ vectors.T).flatten(0, 1), targets, ignore_index=-1)}


class EveryPosition(nn.Module):
    """Learns from padding too."""

    needs = (Embedder,)

    def __init__(self, data, codes) -> None:
        super().__init__()

    def forward(self, encoder, batch):
        states, vectors = encoder.embed(batch, batch.targets.flatten())
        return {"loss": (states.flatten(0, 1) - vectors - 1).square().mean()}


fails("losses", "positions_without_target_are_masked")(EveryPosition)


@fails("losses", "a_mean_over_positions")
class SumOverPositions(PlainLoss):
    def forward(self, encoder, batch):
        return {"loss": super().forward(encoder, batch)["softmax"] * (batch.targets > 0).sum()}


@fails("losses", "seed_decides")
class UnseededNoise(PlainLoss):
    def forward(self, encoder, batch):
        noise = random.SystemRandom().random()
        return {"loss": super().forward(encoder, batch)["softmax"] * (1 + noise)}


@fails("losses", "saves_and_loads")
class CountsSteps(PlainLoss):
    steps = 0

    def forward(self, encoder, batch):
        self.steps += 1
        return {"loss": super().forward(encoder, batch)["softmax"] / self.steps}


@fails("losses", "moves_between_devices")
class KeepsWeights(PlainLoss):
    def __init__(self, data, codes) -> None:
        super().__init__(data, codes)
        self.weights = torch.ones(data.catalogue.num_items + 1)

    def forward(self, encoder, batch):
        return {"loss": super().forward(encoder, batch)["softmax"] * self.weights[batch.targets].mean()}


@fails("losses", "half_precision")
class Overflows(PlainLoss):
    def forward(self, encoder, batch):
        loss = super().forward(encoder, batch)["softmax"]
        small = torch.zeros((), dtype=encoder.turn(encoder.turn.weight).dtype) + 1e-3
        return {"loss": loss / ((1 + small) - 1)}


@fails("losses", "survives")
class SurvivesWithoutABuffer(PlainLoss):
    def survives(self):
        return ("bank",)


# --- trainers


@fails("trainers", "gives_its_loss")
class Silent(PlainTrainer):
    def step(self, state, batch):
        super().step(state, batch)
        return {}


@fails("trainers", "updates_the_encoder")
class NeverUpdates(PlainTrainer):
    def step(self, state, batch):
        return {"loss": sum(loss(state.encoder, batch)["softmax"] for loss, _ in state.losses[:1])}


@fails("trainers", "updates_by_the_state")
class StepsItself(PlainTrainer):
    def step(self, state, batch):
        values = super().step(state, batch)
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return values


@fails("trainers", "resumes")
class Anneals(PlainTrainer):
    """Its weight follows from a number that is not saved."""

    done = 0

    def step(self, state, batch):
        self.done += 1
        state.losses = [(loss, 1 / self.done) for loss, _ in state.losses]
        return super().step(state, batch)


@fails("trainers", "seed_decides")
class UnseededOrder(PlainTrainer):
    def step(self, state, batch):
        state.losses = [(loss, 1 + random.SystemRandom().random()) for loss, _ in state.losses]
        return super().step(state, batch)


@fails("trainers", "examples_are_ranges_of_events")
class BeyondTheHistory(PlainTrainer):
    def examples(self, data, history_length, seed, epoch):
        return Examples(data.trainable, data.lengths[data.trainable] + 1)


@fails("trainers", "leaves_no_gradients")
class BackwardOnceMore(PlainTrainer):
    def step(self, state, batch):
        values = super().step(state, batch)
        state.backward(sum(loss(state.encoder, batch)["softmax"] for loss, _ in state.losses[:1]))
        return values


# --- optimizers


def optimizer(check):
    """A decorator for a class of torch's optimizers."""

    def of(cls):
        def factory(module, *, lr: float = 0.05) -> list:
            """Args:
            lr: learning rate
            """
            return [cls([each for each in module.parameters() if each.requires_grad], lr=lr)]

        fails("optimizers", check)(factory)
        return cls

    return of


@fails("optimizers", "covers_every_parameter")
def forgets_vectors(module) -> list:
    return [torch.optim.SGD([each for each in module.parameters() if each.ndim > 1], lr=0.1)]


@optimizer("moves_what_has_a_gradient")
class DecaysEverything(torch.optim.SGD):
    def step(self, closure=None):
        super().step()
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(0.9)


@optimizer("lowers_the_loss")
class Climbs(torch.optim.SGD):
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.grad.neg_()
        super().step()


@optimizer("follows_the_learning_rate")
class OwnRate(torch.optim.SGD):
    def step(self, closure=None):
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                if parameter.grad is not None:
                    parameter.sub_(0.05 * parameter.grad.to_dense())


@optimizer("sparse_tables")
class PassesOverSparse(torch.optim.SGD):
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = None
        super().step()


@optimizer("state_saves")
class CountsItself(torch.optim.SGD):
    done = 0

    def step(self, closure=None):
        self.done += 1
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.grad.div_(self.done)
        super().step()


@optimizer("evaluation_and_back")
class StaysEvaluated(torch.optim.SGD):
    def train(self) -> None: ...

    def eval(self) -> None:
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(0.5)
