"""The first place's `random-k` regularisation of semantic ids (paper, section 7, which names it and says no more).

Here, in the simplest sound form: while a model is trained, each code that it READS is replaced by one of the k codes
of its level whose centres are nearest to its own, itself included, all equally likely. So codes that mean nearly the
same come to be read as nearly the same, and a small error of the quantiser matters less. Codes that a model is asked
to WRITE are never replaced, since no item need have the code that would come out; nor are codes read at test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from grbench.types import Codes


@dataclass(frozen=True)
class RandomKCodes(Codes):
    """Codes with, for each level, `neighbours` [K_l, k] int64: the codes that may stand for each one in training.

    A code that means nothing by its nearness to others (of an extra level, of items without a vector) has itself only.
    """

    neighbours: tuple[Tensor, ...] = field(default=())


def draw(codes: Tensor, neighbours: Sequence[Tensor], generator: torch.Generator | None = None) -> Tensor:
    """codes [..., L] of real items -> [..., L], each replaced at random as said above; `neighbours` is empty: as is."""
    if not neighbours:
        return codes
    drawn = []
    for level, table in enumerate(neighbours):
        own = codes[..., level]
        choice = torch.randint(table.shape[1], own.shape, generator=generator, device=own.device)
        drawn.append(table.to(own.device)[own, choice])
    return torch.stack(drawn, dim=-1)


def only_itself(codes: int, k: int, first: int = 0) -> Tensor:
    """[codes, k]: the neighbours of codes first.. that stand for themselves alone."""
    return (first + torch.arange(codes))[:, None].expand(codes, k)
