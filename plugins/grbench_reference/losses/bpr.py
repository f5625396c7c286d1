"""Bayesian personalised ranking (arXiv 1205.2618), the loss of LightGCN (arXiv 2002.02126); with one negative, uniform
over the whole vocabulary, also the challenge paper's InfoNCE (section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from grbench_reference.losses.own_negatives import OwnNegatives


class BPR(OwnNegatives):
    """-log sigmoid(positive - negative); with several negatives, -log softmax of the positive among it and them.

    Unlike `infonce`, whose negatives all positions of a step share, each position has negatives of its own.
    """

    def terms(self, positive: Tensor, negative: Tensor, unmasked: Tensor) -> Mapping[str, Tensor]:
        """-> `bpr`."""
        logits = torch.cat([positive.unsqueeze(1), negative.masked_fill(~unmasked, -torch.inf)], 1)
        return {"bpr": logits.logsumexp(1) - positive}
