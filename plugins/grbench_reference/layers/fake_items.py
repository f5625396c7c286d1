"""Fake items: centres of item vectors that follow them while they are trained.

Shapes: F centres, P events, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from grbench.distributed.ranks import current, drawn_alike

KEPT = 0.99
"""What is left of a centre's sums after a training step."""
FEWEST = 0.01
"""Events that a centre stands for, below which it starts anew at one of the step's; all do so in the first step."""


class FakeItems(nn.Module):
    """k-means over the item vectors of training batches, one update a step; a frequent item counts as often as it
    occurs.

    Centres are means whose weights fade, as the codebooks of VQ-VAE (arXiv 1711.00937, appendix A) learn. Nothing waits
    for the device. Several devices learn the same centres, from the whole batch. sums: [F, D], counts: [F], of the
    vectors nearest to each centre; part of a checkpoint.
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
        """vectors [P, D], real [P] bool, false for padding."""
        vectors, weight = vectors.float(), real.float()
        started = self.counts >= FEWEST
        begun, of_begun = _drawn(vectors, weight, len(self.counts))
        sums = torch.where(started.unsqueeze(1), self.sums, begun)
        counts = torch.where(started, self.counts, of_begun)
        centres = sums / counts.clamp(min=FEWEST).unsqueeze(1)
        distances = centres.square().sum(1) - 2 * vectors @ centres.T
        nearest = one_hot(distances.argmin(1), len(counts)).float() * weight.unsqueeze(1)
        self.sums.copy_(KEPT * sums + current().total(nearest.T @ vectors))
        self.counts.copy_(KEPT * counts + current().total(nearest.sum(0)))


def _drawn(vectors: Tensor, weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """-> ([F, D] vectors of events, drawn with replacement; [F], 1, or 0 where there was only padding to draw from,
    which gives zeros). Each device draws from its own part, and for each centre one device's draw is taken, in
    proportion to its events."""
    begun, of_begun = vectors.new_zeros(count, vectors.shape[1]), weight.new_zeros(count)
    if len(vectors):
        places = (weight + 1e-9).multinomial(count, replacement=True)
        begun, of_begun = vectors[places] * weight[places].unsqueeze(1), weight[places]
    ranks = current()
    if ranks.alone:
        return begun, of_begun
    every = ranks.concatenated(torch.cat([begun, of_begun.unsqueeze(1)], 1)).view(ranks.size, count, -1)
    events = ranks.concatenated(weight.sum().unsqueeze(0))
    chosen = drawn_alike(lambda: (events + 1e-9).multinomial(count, replacement=True))
    taken = every[chosen, torch.arange(count, device=chosen.device)]
    return taken[:, :-1], taken[:, -1]
