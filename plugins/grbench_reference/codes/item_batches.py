"""Batches of items that a tokenizer is trained on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def item_batches(count: int, size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows [B] of each step's batch, of 0..count: in every epoch each row once, in another order. size: the most rows
    of a batch."""
    size, done = min(size, count), 0
    while done < steps:
        batches = torch.randperm(count, generator=generator)[: count // size * size].view(-1, size)
        yield from batches[: steps - done]
        done += len(batches)
