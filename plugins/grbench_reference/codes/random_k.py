"""`random-k` regularisation of semantic IDs, by the challenge's first place (paper, section 7, which gives no details).

The form implemented here: in training, each input code is replaced by one of the k codes of its level whose centres
are nearest to its own, itself included, with equal probability. Similar codes thus get similar representations, and
small quantisation errors matter less. Target codes are never replaced, because the result need not be the code of any
item; input codes at test are not replaced either.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from grbench.types import Codes

PREFIX = "neighbours_"


def as_tensors(neighbours: Sequence[Tensor]) -> dict[str, Tensor]:
    """`Codes.tensors` of a tokenizer with random-k. neighbours: for each level [K_l, k] int64, the codes that may
    replace each code in training. Codes without a centre (of an extra level, of items without a vector) are replaced by
    themselves only."""
    return {f"{PREFIX}{level}": table for level, table in enumerate(neighbours)}


def neighbours_of(codes: Codes) -> tuple[Tensor, ...]:
    """For each level [K_l, k]; empty where the tokenizer has no random-k."""
    levels = range(len(codes.sizes))
    return tuple(codes.tensors[f"{PREFIX}{level}"] for level in levels if f"{PREFIX}{level}" in codes.tensors)


def draw(codes: Tensor, neighbours: Sequence[Tensor], generator: torch.Generator | None = None) -> Tensor:
    """codes [..., L] of items (no padding) -> [..., L], each replaced at random; unchanged without `neighbours`."""
    if not neighbours:
        return codes
    drawn = []
    for level, table in enumerate(neighbours):
        own = codes[..., level]
        choice = torch.randint(table.shape[1], own.shape, generator=generator, device=own.device)
        drawn.append(table.to(own.device)[own, choice])
    return torch.stack(drawn, dim=-1)


def self_neighbours(codes: int, k: int, first: int = 0) -> Tensor:
    """[codes, k]: neighbours of the codes from `first` on, each replaced by itself only."""
    return (first + torch.arange(codes))[:, None].expand(codes, k)
