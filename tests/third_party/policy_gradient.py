"""Reinforcement learning after supervised training: lists are sampled from the decoder, an item that came next is the
reward, and the policy is kept near the one that it started from.

Group-relative advantages and the clipped ratio are those of GRPO (arXiv 2402.03300), with several updates a batch.

Shapes: B users, G samples a user, R = B * G, L code levels, K_l codes of level l.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grbench import hookimpl
from grbench.interfaces import Decoder, Trainer
from grbench.training.state import TrainState
from grbench.types import Batch


class PolicyGradient(Trainer):
    """A stage by this trainer needs no loss.

    Args:
        samples: G
        updates: of the model a batch
        clip: how far from 1 the ratio of new and old probabilities may count
        kl: weight of the distance from the reference policy
    """

    needs = (Decoder,)

    def __init__(self, *, samples: int = 8, updates: int = 2, clip: float = 0.2, kl: float = 0.05) -> None:
        self.samples, self.updates, self.clip, self.kl = samples, updates, clip, kl
        self.reference: nn.Module = nn.Module()

    def start(self, state: TrainState) -> None:
        """The reference policy is the encoder as the stage finds it; it learns nothing."""
        self.reference = copy.deepcopy(state.encoder).eval().requires_grad_(False)

    def step(self, state: TrainState, batch: Batch) -> Mapping[str, Tensor]:
        """Samples once, then updates several times by the same samples."""
        rows = torch.arange(len(batch.users), device=batch.users.device).repeat_interleave(self.samples)
        with torch.no_grad():
            written, old = sampled(state.encoder, batch, rows, state.codes.sizes)
            reference = log_probability(self.reference, batch, rows, written)
        targets = batch.targets[:, -1]
        wanted = state.codes.table.to(targets.device)[targets][rows]
        reward = ((written == wanted).all(1) & (targets > 0)[rows]).float()
        by_user = reward.view(-1, self.samples)
        spread = by_user.std(1, correction=0, keepdim=True) + 1e-4
        advantage = ((by_user - by_user.mean(1, keepdim=True)) / spread).flatten()
        for _ in range(self.updates):
            with state.autocast():
                new = log_probability(state.encoder, batch, rows, written)
                ratio = (new - old).exp()
                clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
                gain = torch.minimum(ratio * advantage, clipped * advantage).mean()
                away = reference - new
                distance = (away.exp() - away - 1).mean()
                loss = self.kl * distance - gain
            state.backward(loss)
            state.update()
        return {"loss": loss, "distance": distance, "reward": reward.mean()}

    def state_dict(self) -> dict[str, Any]:
        return {"reference": self.reference.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.reference.load_state_dict(saved["reference"])


def sampled(encoder: Any, batch: Batch, rows: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """rows [R], of the batch -> codes [R, L] drawn level by level, and their log probabilities [R]."""
    logits, state = encoder.start(batch)
    logits, state = logits[rows], state.select(rows)
    written, total = [], torch.zeros(len(rows), device=rows.device)
    for level in range(len(sizes)):
        chances = logits.float().log_softmax(1)
        codes = torch.multinomial(chances.exp(), 1).squeeze(1)
        total = total + chances.gather(1, codes.unsqueeze(1)).squeeze(1)
        written.append(codes)
        if level + 1 < len(sizes):
            logits, state = encoder.step(codes, state)
    return torch.stack(written, 1), total


def log_probability(encoder: Any, batch: Batch, rows: Tensor, written: Tensor) -> Tensor:
    """Of codes [R, L] that somebody wrote -> [R]."""
    logits, state = encoder.start(batch)
    logits, state = logits[rows], state.select(rows)
    total = torch.zeros(len(rows), device=rows.device)
    for level, codes in enumerate(written.T):
        total = total + logits.float().log_softmax(1).gather(1, codes.unsqueeze(1)).squeeze(1)
        if level + 1 < written.shape[1]:
            logits, state = encoder.step(codes, state)
    return total


@hookimpl
def register_trainers(register: Any) -> None:
    register("policy_gradient", "policy_gradient:PolicyGradient")
