"""PRISM's sequence mixer (arXiv 2602.10796): a state matrix a head, which each token decays and writes to in steps.

Shapes: P tokens, D width, G rows of a group padded to length N, H heads, E = D / H, L steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench_reference.kernels.decayed_scan import decayed_scan
from grbench_reference.kernels.embedding import unit
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.layers.token_packing import Layout

HALF_LIVES = (8.0, 128.0)
"""Tokens after which half of a state is left before training: of the first and of the last head."""
CONSTANT_GAIN = 0.5
"""Of every step where gains are not predicted; predicted ones start there."""


class PrismMixer(nn.Module):
    """tokens [P, D] -> [P, D]: what each token's query reads from its head's state, which holds the row's tokens up to
    this one.

    A token's residual is its value less the anchor, a convolution of the values of the tokens before it. In each of L
    steps it writes to the state along a key of the step's own, and goes on with what is left:

        r_1 = v - anchor;   w_l = gain_l f(r_l);   S += k_l w_l';   r_(l+1) = r_l - w_l

    All of it depends on inputs and not on the state, so that the recurrence is linear in the state (`decayed_scan`). A
    token adds a matrix of rank L. Without the non-linearity f all w_l are multiples of v - anchor, and it has rank 1.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        steps: int,
        convolution: int,
        nonlinearity: bool,
        gain: bool,
        bias: bool,
        write_bias: nn.Module | None,
    ) -> None:
        """convolution: tokens of the anchor, 0 = no anchor. write_bias: actions [P] -> [P, H], logarithms of factors of
        what a token writes: what the bias of a key's score is to softmax attention."""
        super().__init__()
        self.heads, self.steps, self.nonlinearity, self.write_bias = heads, steps, nonlinearity, write_bias
        self.project = nn.Linear(width, (2 + steps) * width, bias=bias)
        self.forget = nn.Linear(width, heads)
        with torch.no_grad():
            kept = 0.5 ** (1 / torch.logspace(math.log2(HALF_LIVES[0]), math.log2(HALF_LIVES[1]), heads, base=2.0))
            self.forget.bias.copy_(torch.logit(kept))
        self.gain = nn.Linear(width, steps * heads) if gain else None
        if self.gain is not None:
            nn.init.zeros_(self.gain.bias)
        # Starts at zero, as the mixer without an anchor.
        self.anchor = nn.Parameter(torch.zeros(convolution, width)) if convolution else None
        self.read_norm = RMSNorm(width // heads)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, tokens: Tensor, layout: Layout, actions: Tensor) -> Tensor:
        """actions [P] of the tokens, used where there is a write_bias."""
        projected, forgotten = self.project(tokens), functional.logsigmoid(self.forget(tokens).float())
        gain = None if self.gain is None else torch.sigmoid(self.gain(tokens))
        strength = None if self.write_bias is None else self.write_bias(actions).float().exp()
        read = []
        for group in layout.groups:
            query, value, *keys = group.grid(projected).chunk(2 + self.steps, 2)
            sides = [None if each is None else group.grid(each) for each in (gain, strength)]
            written = self._written(value, *sides)
            mixed = decayed_scan(
                self._split(query) * (tokens.shape[1] // self.heads) ** -0.5,
                unit(torch.stack([self._split(key) for key in keys], 3)),
                written,
                group.grid(forgotten).transpose(1, 2),
            )
            read.append(group.tokens(self.read_norm(mixed).transpose(1, 2).flatten(2)))
        out: Tensor = self.out(torch.cat(read))
        return out

    def _written(self, value: Tensor, gain: Tensor | None, strength: Tensor | None) -> Tensor:
        """value [G, N, D], gain [G, N, L H], strength [G, N, H] -> [G, H, N, L, E], what each step writes."""
        residual = self._split(value if self.anchor is None else value - earlier(value, self.anchor))
        if gain is not None:
            gain = (
                gain.reshape(*gain.shape[:2], self.steps, self.heads).permute(0, 3, 1, 2).unsqueeze(4)
            )  # [G, H, N, L, 1]
        steps = []
        for step in range(self.steps):
            share = CONSTANT_GAIN if gain is None else gain[:, :, :, step]
            steps.append(share * (torch.tanh(residual) if self.nonlinearity else residual))
            residual = residual - steps[-1]
        written = torch.stack(steps, 3)
        return written if strength is None else written * strength.transpose(1, 2)[..., None, None].to(written.dtype)

    def _split(self, values: Tensor) -> Tensor:
        """[G, N, D] -> [G, H, N, E]"""
        return values.reshape(*values.shape[:2], self.heads, values.shape[2] // self.heads).transpose(1, 2)


def earlier(values: Tensor, weights: Tensor) -> Tensor:
    """values [G, N, D], weights [W, D] -> [G, N, D]: at each token the W before it, each weighted by how far back it is
    (a causal convolution a channel, without the token itself)."""
    length = values.shape[1]
    padded = functional.pad(values, (0, 0, len(weights), 0))
    shifted = [padded[:, len(weights) - back : len(weights) - back + length] for back in range(1, len(weights) + 1)]
    return sum((each * weight for each, weight in zip(shifted[1:], weights[1:], strict=True)), shifted[0] * weights[0])
