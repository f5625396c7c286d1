"""Binary cross entropy with sampled negatives: the loss of SASRec (arXiv 1808.09781) and of the challenge's released
baseline."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import softplus

from grbench_reference.losses.own_negatives import OwnNegatives


class BCE(OwnNegatives):
    """-log sigmoid(positive) - log sigmoid(-negative), where the terms of a position's negatives are averaged."""

    def terms(self, positive: Tensor, negative: Tensor, unmasked: Tensor) -> Mapping[str, Tensor]:
        """-> `positive` and `negative`."""
        counted = unmasked.to(negative.dtype)
        return {
            "positive": softplus(-positive),
            "negative": (softplus(negative) * counted).sum(1) / counted.sum(1).clamp(min=1),
        }
