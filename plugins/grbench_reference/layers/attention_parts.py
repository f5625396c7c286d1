"""Attention whose keys lie in several tensors, which queries share to different degrees: those of a history, of all
users, or of a query's own.

Shapes: G rows, W places of a row, n queries of a place, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from grbench_reference.kernels.embedding import dropout

QUERIES = "gwnhe"


class Part(NamedTuple):
    """Some of the keys of an attention.

    query: [G, W, n, H, E'], E' >= E: as these keys want it, such as turned by rotary positions; keys, values:
    [..., E'], [..., E], whose dimensions `axes` names, in einsum's letters: g, w, n, h, e as in the query, and one more
    that counts the keys. visible: bool that broadcasts to [G, W, n, 1, keys]; None = all.
    """

    query: Tensor
    axes: str
    keys: Tensor
    values: Tensor
    visible: Tensor | None = None

    @property
    def of_scores(self) -> str:
        (counts,) = set(self.axes) - set(QUERIES)
        return f"gwnh{counts}"


def attend(parts: Sequence[Part], share: float, *, training: bool) -> Tensor:
    """-> [G, W, n, H, E], softmax(q k' / sqrt(E)) v over the keys of all parts together; `share` of the weights dropped
    in training. Each query needs a visible key."""
    scale = parts[0].values.shape[-1] ** -0.5
    scores = []
    for part in parts:
        of_part = torch.einsum(f"{QUERIES},{part.axes}->{part.of_scores}", part.query * scale, part.keys)
        scores.append(of_part if part.visible is None else of_part.masked_fill(~part.visible, -torch.inf))
    sizes = [each.shape[-1] for each in scores]
    weights = torch.split(dropout(torch.cat(scores, -1).softmax(-1), share, training=training), sizes, -1)
    mixed = [
        torch.einsum(f"{part.of_scores},{part.axes}->{QUERIES}", each.to(part.values.dtype), part.values)
        for part, each in zip(parts, weights, strict=True)
    ]
    return torch.stack(mixed).sum(0)
