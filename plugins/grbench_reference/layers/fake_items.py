"""Fake items: centres of item vectors that follow them while they are trained.

Shapes: F centres, P events, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from grbench.distributed.ranks import current

KEPT = 0.99
"""What is left of a centre's sums after a training step."""
FEWEST = 0.01
"""Events that a centre stands for, below which it starts anew at one of the step's; all do so in the first step."""


class FakeItems(nn.Module):
    """k-means over the item vectors of training batches, one update a step; a frequent item counts as often as it
    occurs.

    Centres are means whose weights fade, as the codebooks of VQ-VAE (arXiv 1711.00937, appendix A) learn. Nothing waits
    for the device. sums: [F, D], counts: [F], of the vectors nearest to each centre; part of a checkpoint.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(count, width))
        self.register_buffer("counts", torch.zeros(count))

    def forward(self) -> Tensor:
        """-> [F, D]; zero before the first step."""
        return self.sums / self.counts.clamp(min=FEWEST).unsqueeze(1)

    @torch.no_grad()
    def learn(self, vectors: Tensor, real: Tensor) -> None:
        """vectors [P, D], real [P] bool, false for padding. On several devices, those of all; new centres start at
        events of the first one."""
        ranks = current()
        # Behind the events one of padding, so that there is always something to draw.
        vectors, weight = pad(vectors.float(), (0, 0, 0, 1)), pad(real.float(), (0, 1))
        started = self.counts >= FEWEST
        # A new centre's events are drawn with replacement; a centre at padding is empty again in the next step.
        drawn = (weight + 1e-9).multinomial(len(self.counts), replacement=True)
        new = ranks.total(_weighted(vectors[drawn], weight[drawn]) * float(ranks.first))
        sums = torch.where(started.unsqueeze(1), self.sums, new[:, :-1])
        counts = torch.where(started, self.counts, new[:, -1])
        centres = sums / counts.clamp(min=FEWEST).unsqueeze(1)
        distances = centres.square().sum(1) - 2 * vectors @ centres.T
        nearest = one_hot(distances.argmin(1), len(counts)).float()
        added = ranks.total(nearest.T @ _weighted(vectors, weight))
        self.sums.copy_(KEPT * sums + added[:, :-1])
        self.counts.copy_(KEPT * counts + added[:, -1])


def _weighted(vectors: Tensor, weight: Tensor) -> Tensor:
    """vectors [n, D], weight [n] -> [n, D + 1], the vectors times their weight, and the weight."""
    return torch.cat([vectors, torch.ones_like(vectors[:, :1])], 1) * weight.unsqueeze(1)
