"""Diffusion of a user's intent: a vector in the space of items, of which there is a hypothesis, denoised in few steps.

A clean intent is a direction: a vector of length sqrt(D), so that its numbers have a mean square of 1. Noise of angle a
makes cos(a) x + sin(a) n of it, n standard normal, which keeps that mean square.

Shapes: D width, K steps of denoising.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench_reference.kernels.rms_norm import RMSNorm


class Hypotheses(NamedTuple):
    """What an intent is denoised from. intents: [..., D], what thinking came to; states: [..., D], of the history."""

    intents: Tensor
    states: Tensor


class Move(NamedTuple):
    """The normal distribution that a step of denoising draws from: mean [..., D], and the deviation of each number."""

    mean: Tensor
    deviation: float


class IntentDiffusion(nn.Module):
    """The denoiser, and the schedule of its steps.

    steps: K. noise: sine of the largest angle, at which denoising starts. The K + 1 angles of the steps are multiples
    of the smallest, at which it ends, so that the last step too is a draw.
    """

    def __init__(self, width: int, *, steps: int, noise: float, hidden: int) -> None:
        super().__init__()
        self.steps, self.largest = steps, math.asin(noise)
        self.norm = RMSNorm(3 * width)
        self.first, self.second = nn.Linear(3 * width + 2, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.second.weight)  # it starts as the identity of hypotheses
        nn.init.zeros_(self.second.bias)

    def forward(self, noisy: Tensor, angles: Tensor | float, hypotheses: Hypotheses) -> Tensor:
        """noisy [..., D] at angles [...] -> [..., D], the clean intent that the denoiser expects."""
        level = torch.as_tensor(angles, dtype=noisy.dtype, device=noisy.device).expand(noisy.shape[:-1]).unsqueeze(-1)
        known = self.norm(torch.cat([noisy, *hypotheses], -1))
        hidden = functional.silu(self.first(torch.cat([known, level.cos().to(known), level.sin().to(known)], -1)))
        return directions(hypotheses.intents + self.second(hidden))

    def noised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """clean [..., D] -> (with noise of a random angle each, the angles [...])."""
        angles = self.largest * (1 - torch.rand(clean.shape[:-1], device=clean.device))
        level = angles.unsqueeze(-1)
        return level.cos() * clean + level.sin() * torch.randn_like(clean), angles

    def start(self, hypotheses: Hypotheses) -> Move:
        """The distribution of the noisy intents that denoising begins with: the hypothesis at the largest angle."""
        return Move(math.cos(self.largest) * directions(hypotheses.intents), math.sin(self.largest))

    def move(self, number: int, noisy: Tensor, hypotheses: Hypotheses) -> Move:
        """Step `number`, 0 = first, of a noisy intent: the distribution of the one before noise was added to it, if
        the clean one is what the denoiser expects (DDPM's posterior, arXiv 2006.11239, for these angles)."""
        before, after = self._angle(number), self._angle(number + 1)
        clean = self(noisy, before, hypotheses)
        kept = (math.cos(before) / math.cos(after)) ** 2
        share = (math.sin(after) / math.sin(before)) ** 2
        mean = math.cos(after) * (1 - kept) / math.sin(before) ** 2 * clean + math.sqrt(kept) * share * noisy
        return Move(mean, math.sqrt(share * (1 - kept)))

    def refined(self, hypotheses: Hypotheses) -> Tensor:
        """-> [..., D]: the intent after all steps without any noise, which is what is searched with."""
        intents = self.start(hypotheses).mean
        for number in range(self.steps):
            intents = self.move(number, intents, hypotheses).mean
        return directions(intents)

    def _angle(self, number: int) -> float:
        """Before step `number`; number K: after the last."""
        return self.largest * (self.steps + 1 - number) / (self.steps + 1)


def directions(vectors: Tensor) -> Tensor:
    """[..., D], scaled to length sqrt(D)."""
    unit: Tensor = functional.normalize(vectors.float(), dim=-1)
    return unit * math.sqrt(vectors.shape[-1])
