"""What searches and metrics are timed on: vectors in clusters, and rankings, from a fixed seed.

Shapes: P candidates, D width, Q queries, N items.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.types import FIRST_ACTION, Batch, Ranking

ACTIONS = ("exposure", "click", "conversion")


class TableOfVectors(nn.Module):
    """An encoder that looks its vectors up: P items in clusters, and Q histories near them, D = 32."""

    history_length = 1
    items: Tensor
    histories: Tensor

    def __init__(self, candidates: int, queries: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(max(1, candidates // 100), 32, generator=generator)
        for name, count in (("items", candidates + 1), ("histories", queries)):
            chosen = centres[torch.randint(len(centres), (count,), generator=generator)]
            vectors = chosen + 0.5 * torch.randn(chosen.shape, generator=generator)
            self.register_buffer(name, nn.functional.normalize(vectors))

    def queries(self) -> Batch:
        """A batch of one query a history."""
        nothing = torch.zeros(len(self.histories), 1, dtype=torch.int64, device=self.histories.device)
        users = torch.arange(len(nothing), device=nothing.device)
        return Batch(users, *(nothing,) * 4, nothing + FIRST_ACTION, *(nothing[:, 0],) * 3)

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([Q, 1, D], [N, D])."""
        return self.embed_histories(batch).unsqueeze(1), self.embed_items(items)

    def embed_histories(self, batch: Batch) -> Tensor:
        """-> [Q, D]."""
        return self.histories[batch.users]

    def embed_items(self, items: Tensor) -> Tensor:
        """items [N] -> [N, D]."""
        return self.items[items]


def made_up_ranking(queries: int, length: int, training: TrainingData) -> Ranking:
    """Q lists of `length` items of the catalogue, one target each, which a third of the lists holds."""
    random, pool = np.random.default_rng(0), training.catalogue.num_items
    items = 1 + (random.integers(pool, size=(queries, 1)) + 7 * np.arange(length)) % pool
    ranks = random.integers(-2 * length, length + 1, size=(queries, 1)).clip(min=0)
    targets = np.where(ranks > 0, np.take_along_axis(items, (ranks - 1).clip(min=0), axis=1), pool)
    return Ranking(
        users=np.arange(queries),
        items=items,
        scores=np.broadcast_to(-np.arange(length, dtype=np.float32), items.shape),
        targets=targets,
        target_actions=random.integers(1, len(ACTIONS), size=ranks.shape) + FIRST_ACTION,
        ranks=ranks,
        actions=ACTIONS,
        pool=pool,
        history_lengths=random.integers(1, 100, size=queries),
        training=training,
    )
