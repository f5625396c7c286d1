"""Exact search, then an encoder's own ranking stage over the candidates found (OneRanker, arXiv 2603.02999).

Shapes: B users, P candidates, C candidates retrieved.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from pydantic import PositiveInt
from torch import Tensor

from grbench.errors import RunError
from grbench.interfaces import Embedder, Encoder, Retriever, optional
from grbench.types import Batch, Codes, TopK
from grbench_reference.layers.interfaces import CandidateRanker
from grbench_reference.retrievers.exact import Exact
from grbench_reference.retrievers.similarity import IndexSimilarity
from grbench_reference.retrievers.top_k import full_precision, padded_top_k


class RankingEncoder(Embedder, CandidateRanker, Protocol):
    """An encoder with both interfaces."""


class RetrieveRank(Retriever):
    """The `items` candidates with the largest inner product, ordered by the ranking stage's scores; ties go to the
    smaller item id. Lists are never longer than `items`.

    Args:
        items: candidates that are retrieved and then ranked.
        similarity: by which they are retrieved: dot = inner product; cosine = inner product of unit vectors;
            euclidean = smallest distance first.
        block: candidates scored at once; null = 2,048 on a CPU, 65,536 on a GPU.
        encode_block: number of candidates that the encoder embeds at once.
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder, CandidateRanker)

    def __init__(
        self,
        *,
        items: PositiveInt = 100,
        similarity: IndexSimilarity = "dot",
        block: PositiveInt | None = None,
        encode_block: PositiveInt = 16_384,
    ) -> None:
        self.items = items
        self._exact = Exact(similarity=similarity, block=block, encode_block=encode_block)
        self._ranked = 0

    @torch.no_grad()
    def index(self, encoder: RankingEncoder, candidates: Tensor, codes: Codes) -> None:
        """candidates: [P] int64, ascending, on the encoder's device."""
        self._exact.index(encoder, candidates, codes)
        self._ranked = min(self.items, len(candidates))

    @torch.no_grad()
    def search(self, encoder: RankingEncoder, batch: Batch, k: int) -> TopK:
        """The k best of the candidates retrieved; raises RunError where a history's vector or a score of the ranking
        stage is not finite."""
        with optional(encoder, Encoder.one_pass)():  # a history is encoded once for both stages
            retrieved = self._exact.search(encoder, batch, self._ranked)
            found = retrieved.items.sort(1).values  # ascending, so that ties go to the smaller item
            with full_precision(batch.users.device.type):
                scores = encoder.rank_newest(batch, found).float()
        finite = scores.isfinite().all(1)
        if not bool(finite.all()):
            user = int(batch.users[~finite][0])
            raise RunError(f"the ranking stage's scores of user row {user} are not finite (NaN or infinite)")
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return padded_top_k(found.gather(1, order)[:, :k], scores[:, :k], k)

    def report(self) -> dict[str, Any]:
        """Facts about the index for the record."""
        return {**self._exact.report(), "ranked": self._ranked}
