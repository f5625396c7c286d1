"""DiffuReason's last stage (arXiv 2602.09744): training by a ranking reward of denoised intents.

Each step of denoising draws from a normal distribution, so that a sampled intent has a probability, and GRPO applies.

Shapes: B users, G samples of a user, K steps of denoising, D width, C items that are ranked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor

from grbench.data.examples import Examples, newest_targets
from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import drawn_alike
from grbench.errors import SuiteError
from grbench.registry.option_types import Count
from grbench.training.state import TrainState
from grbench.types import Batch
from grbench_reference.layers.intent_diffusion import Hypotheses, IntentDiffusion, Move
from grbench_reference.layers.interfaces import IntentDenoiser
from grbench_reference.trainers.advantages import group_advantages
from grbench_reference.trainers.policy import (
    PolicyOptions,
    PolicyTrainer,
    check_options,
    mean_over_users,
    newest_targets_of,
    shares_of,
    weight_of_tokens,
)
from grbench_reference.trainers.rewards import RANK_REWARDS


class Diffuse(PolicyTrainer):
    """Draws denoised intents, rewards each by the rank that it gives the target, and makes the steps of those that did
    better than their group more probable: thinking, denoiser and history encoder learn together. Items' vectors change
    by the stage's losses only, which are added to the objective; `loss: []` trains by reward alone.

    The state after the event before each user's newest event that may be a target is denoised. Dropout is off while
    intents are drawn and compared.

    Args:
        reward: of an intent: rank_gain = the target's discounted gain at its rank; hit = 1 where that is at most 10.
        ranked: items with a training event that the target is ranked among, drawn anew in each step; all, where there
            are fewer.
    """

    needs = (IntentDenoiser,)

    def __init__(
        self,
        *,
        reward: Literal["hit", "rank_gain"] = "rank_gain",
        ranked: Count = 1000,
        policy: PolicyOptions = PolicyOptions(),
    ) -> None:
        super().__init__(policy)
        self.reward, self.ranked = RANK_REWARDS[reward], ranked

    def start(self, state: TrainState) -> None:
        """Freezes the reference. Raises SuiteError where the encoder denoises nothing, and for options that do not fit
        the data or the training options."""
        check_options(state, "diffuse")
        if cast(IntentDenoiser, state.encoder).intent_diffusion() is None:
            raise SuiteError("trainer diffuse: the encoder denoises nothing; set encoder.steps to at least 1")
        trained = torch.from_numpy(state.data.item_counts() > 0).nonzero().squeeze(1)
        self.items = trained.to(state.device)
        actions = state.data.catalogue.actions
        self.weights = weight_of_tokens(actions, self.options.action_weights, "diffuse").to(state.device)
        self.freeze(state.encoder)

    def step(self, state: TrainState, batch: Batch) -> Mapping[str, Tensor]:
        """-> `loss`, the terms of the stage's losses if there are any, and: reward, of the mean sample; best, of each
        user's best; kl, the distance of the steps from the reference's; clipped, the share of steps that the last
        update gained nothing by."""
        targets, actions = newest_targets_of(batch)
        real, options, encoder = targets > 0, self.options, cast(IntentDenoiser, state.encoder)
        shares = shares_of(real)
        state.encoder.eval()  # with dropout, two passes of one policy would give one sample two probabilities
        with torch.no_grad(), state.autocast():
            drawn = self._draw(encoder, batch)
            rewards = self.reward(self._ranks(encoder, drawn[-1], targets))
            frozen = None
            if self.reference is not None:
                frozen = self._moves(cast(IntentDenoiser, self.reference), batch, drawn)
        advantages = group_advantages(rewards, options.scale, real) * self.weights[actions].unsqueeze(1)

        def decisions() -> tuple[Tensor, Tensor | None]:
            moves = self._moves(encoder, batch, drawn)
            new = torch.stack([log_density(*each) for each in zip(drawn, moves, strict=True)], 2)
            if frozen is None:
                return new, None
            return new, torch.stack([divergence(*each) for each in zip(moves, frozen, strict=True)], 2)

        return {
            **self.improve(state, batch, decisions, advantages.unsqueeze(2), shares),
            "reward": mean_over_users(rewards, shares),
            "best": mean_over_users(rewards.amax(1), shares),
        }

    def examples(self, data: TrainingData, history_length: int, seed: int, epoch: int) -> Examples | None:  # noqa: ARG002
        """See Trainer."""
        return newest_targets(data, seed=seed, epoch=epoch, least=2)

    def _draw(self, encoder: IntentDenoiser, batch: Batch) -> list[Tensor]:
        """-> [B, G, D], the noisy intents that denoising starts with, and those after each of its K steps."""
        denoiser, hypotheses = self._denoiser(encoder), self._hypotheses(encoder, batch)
        drawn = [self._sample(denoiser.start(hypotheses))]
        for number in range(denoiser.steps):
            drawn.append(self._sample(denoiser.move(number, drawn[-1], hypotheses)))
        return drawn

    def _moves(self, encoder: IntentDenoiser, batch: Batch, drawn: list[Tensor]) -> list[Move]:
        """The distributions that the encoder draws each of the intents from, given those before it."""
        denoiser, hypotheses = self._denoiser(encoder), self._hypotheses(encoder, batch)
        moves = [denoiser.start(hypotheses)]
        moves += [denoiser.move(number, drawn[number], hypotheses) for number in range(denoiser.steps)]
        return [self._heated(move) for move in moves]

    def _ranks(self, encoder: IntentDenoiser, intents: Tensor, targets: Tensor) -> Tensor:
        """intents [B, G, D], targets [B] -> [B, G] float32, 1 = first, among items drawn for the step; a tie counts
        against the target."""
        order = drawn_alike(lambda: torch.randperm(len(self.items), device=self.items.device))
        chosen = self.items[order[: self.ranked]]
        vectors = encoder.embed_items(torch.cat([chosen, targets])).float()
        others, wanted = vectors[: len(chosen)], vectors[len(chosen) :]
        with torch.autocast(intents.device.type, enabled=False):  # as the target's own score below
            scores = intents.float() @ others.T
        of_target = (intents.float() * wanted.unsqueeze(1)).sum(2, keepdim=True)
        above = (scores >= of_target) & (chosen != targets[:, None, None])
        return 1.0 + above.sum(2)

    def _hypotheses(self, encoder: IntentDenoiser, batch: Batch) -> Hypotheses:
        """[B, G, D]"""
        newest = encoder.newest_hypotheses(batch)
        return Hypotheses(*(each.unsqueeze(1).expand(-1, self.options.samples, -1) for each in newest))

    def _denoiser(self, encoder: IntentDenoiser) -> IntentDiffusion:
        denoiser = encoder.intent_diffusion()
        assert denoiser is not None, "start refuses an encoder without"
        return denoiser

    def _heated(self, move: Move) -> Move:
        return move._replace(deviation=move.deviation * self.options.temperature)

    def _sample(self, move: Move) -> Tensor:
        return move.mean + self._heated(move).deviation * torch.randn_like(move.mean)


def log_density(drawn: Tensor, move: Move) -> Tensor:
    """drawn [..., D] -> [...] float32, the log density of the move there."""
    off = ((drawn - move.mean).float() / move.deviation).square().sum(-1)
    return -0.5 * off - drawn.shape[-1] * (math.log(move.deviation) + 0.5 * math.log(2 * math.pi))


def divergence(move: Move, reference: Move) -> Tensor:
    """[...] float32, the KL divergence between two moves of the same deviation."""
    return 0.5 * ((move.mean - reference.mean).float() / move.deviation).square().sum(-1)
