"""A retriever that knows the targets: what the best possible method would find.

Shapes: B users of a batch, Q queries, G targets per query, P candidates.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from grbench.data.split import Queries
from grbench.interfaces import Retriever
from grbench.types import Batch, Codes, TopK


class Oracle(Retriever):
    """Lists the targets of each query first, as far as they are candidates, then the other candidates. The queries must
    be searched in their order."""

    needs: ClassVar[tuple[type, ...]] = ()

    def __init__(self, queries: Queries) -> None:
        self._targets, self._done = queries.targets, 0
        self._pool = np.zeros(0, np.int64)

    def index(self, encoder: Any, candidates: Tensor, codes: Codes) -> None:  # noqa: ARG002
        """See Retriever."""
        self._pool, self._done = candidates.cpu().numpy(), 0

    def search(self, encoder: Any, batch: Batch, k: int) -> TopK:  # noqa: ARG002
        """See Retriever."""
        targets = self._targets[self._done : self._done + len(batch.users)]
        self._done += len(batch.users)
        others = np.broadcast_to(
            self._pool[: k + targets.shape[1]], (len(targets), min(k + targets.shape[1], len(self._pool)))
        )
        items = np.concatenate([np.where(np.isin(targets, self._pool), targets, 0), others], axis=1)
        items = np.where(_repeated(items), 0, items)
        items = np.take_along_axis(items, np.argsort(items == 0, axis=1, kind="stable"), axis=1)[:, :k]
        scores = np.where(items > 0, -np.arange(k, dtype=np.float32), np.float32(-np.inf))
        return TopK(torch.from_numpy(items), torch.from_numpy(scores))


def _repeated(items: np.ndarray) -> np.ndarray:
    """items [B, S] -> [B, S] bool, whether the same item stands further left in its row."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    again = np.zeros(items.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    found = np.zeros(items.shape, bool)
    np.put_along_axis(found, order, again, axis=1)
    return found
