"""A mixture of experts in place of a feed-forward layer.

DeepSeek-V3's (arXiv 2412.19437, section 2.1.2), as in the challenge's innovation award: sigmoid affinities, gates
normalised over the chosen experts, one expert that every token shares, and a balance loss. Differs: the loss is taken
over a whole batch, not a sequence, and there is no bias that moves against crowded experts.

Shapes: P tokens, D width, E experts, k experts a token, H hidden width of an expert.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench.distributed.ranks import averaged
from grbench_reference.kernels.embedding import Dropout
from grbench_reference.layers.transformer import FeedForward


class MixtureOfExperts(nn.Module):
    """tokens [P, D] -> ([P, D], balance loss): each token by `active` of `experts` SwiGLU layers and the shared one."""

    def __init__(self, width: int, hidden: int, *, experts: int, active: int, dropout: float) -> None:
        super().__init__()
        self.active = active
        self.shared = FeedForward(width, hidden, activation="swiglu", dropout=dropout)
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.empty(experts, width, 2 * hidden).uniform_(-(width**-0.5), width**-0.5))
        self.down = nn.Parameter(torch.empty(experts, hidden, width).uniform_(-(hidden**-0.5), hidden**-0.5))
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """real: [P] bool, the tokens that count in the balance; None = all.

        The balance loss is 1 where all experts are chosen equally often, and at most E.
        """
        affinities = self.router(tokens).float().sigmoid()
        gates, chosen = affinities.topk(self.active, dim=1)
        gates = gates / gates.sum(1, keepdim=True)
        return self.shared(tokens) + self._experts(tokens, gates, chosen), self._balance(affinities, chosen, real)

    def _experts(self, tokens: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """Tokens sorted by expert, so that each expert is two matrix products."""
        order = chosen.reshape(-1).argsort(stable=True)
        counts = torch.bincount(chosen.reshape(-1), minlength=len(self.up)).tolist()
        owner = order // self.active
        outputs = []
        for some, up, down in zip(torch.split(tokens[owner], counts), self.up, self.down, strict=True):
            hidden, gate = (some @ up).chunk(2, dim=1)
            outputs.append(self.dropout(hidden * functional.silu(gate)) @ down)
        weighted = torch.cat(outputs) * gates.reshape(-1)[order].unsqueeze(1)
        return torch.zeros_like(tokens, dtype=weighted.dtype).index_add(0, owner, weighted)

    def _balance(self, affinities: Tensor, chosen: Tensor, real: Tensor | None) -> Tensor:
        """sum over experts of f P: f = its share of the choices times E, P = its mean share of the affinities. In
        training on several devices f is the whole batch's, and what P is divided by."""
        counted = affinities.new_ones(len(affinities)) if real is None else real.to(affinities.dtype)
        choices = affinities.new_zeros(affinities.shape[1])
        choices = choices.index_add(0, chosen.reshape(-1), counted.repeat_interleave(self.active))
        sums = torch.cat([choices, counted.sum().unsqueeze(0)])
        choices, total = torch.split(averaged(sums) if self.training else sums, [len(choices), 1])
        total = total.clamp(min=1e-6)
        shares = affinities / affinities.sum(1, keepdim=True)
        mean = (shares * counted.unsqueeze(1)).sum(0) / total
        return (choices / (total * self.active) * mean).sum() * affinities.shape[1]
