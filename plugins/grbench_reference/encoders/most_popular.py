"""Ranks every item by its number of training events, the same list for everybody: the floor of any table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.types import Batch, Codes


class MostPopular(nn.Module):
    """Histories are 1 and items their count, so that the inner product is the count. Nothing is learnt.

    Args:
        actions: count events of these actions only; null = all.
    """

    history_length = 1
    counts: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - items as such
        *,
        actions: list[str] | None = None,
    ) -> None:
        super().__init__()
        for name in actions or []:
            if name not in data.catalogue.actions:
                raise SuiteError(
                    f"encoder.actions: no action {name!r} in this dataset; it has {', '.join(data.catalogue.actions)}"
                )
        # float32 holds every integer up to 2^24 exactly, and above that separates counts to one part in 16 million.
        counts = torch.from_numpy(data.item_counts(actions).astype("float32"))
        self.register_buffer("counts", counts.unsqueeze(1), persistent=False)

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, T, 1] ones, [N, 1] counts)."""
        return self.counts.new_ones(*batch.items.shape, 1), self.embed_items(items)

    def embed_histories(self, batch: Batch) -> Tensor:
        """-> [B, 1] ones."""
        return self.counts.new_ones(len(batch.users), 1)

    def embed_items(self, items: Tensor) -> Tensor:
        """items [N] -> [N, 1] counts."""
        return self.counts[items]
