"""The exact retriever: every candidate is scored. What the others are measured against."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from grbench.interfaces import Embedder, Retriever
from grbench.types import Batch, Codes, TopK
from grbench_reference.retrievers.inner_product import ExactSearch
from grbench_reference.retrievers.vectors import IndexSimilarity, candidate_vectors, history_vectors, largest_norm


class Exact(Retriever):
    """The candidates with the largest inner product; of equal ones, the lower item first. On CPU and GPU.

    Scores are float32 whatever the encoder's precision. Memory: P x D x 4 bytes for the candidates, and while
    searching P / 32 x 4 bytes a query searched at once (256 on a CPU, 1,024 on a GPU), plus one block of scores.

    Args:
        similarity: dot = inner product; cosine = of vectors of length 1; euclidean = nearest first.
        block: candidates scored at once; null takes 2,048 on a CPU (fits its cache) and 65,536 on a GPU.
        encode_block: candidates that the encoder is given at once.
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder,)

    def __init__(
        self,
        *,
        similarity: IndexSimilarity = "dot",
        block: PositiveInt | None = None,
        encode_block: PositiveInt = 16_384,
    ) -> None:
        self.similarity: IndexSimilarity = similarity
        self.block, self.encode_block = block, encode_block
        self._exact: ExactSearch | None = None
        self._candidates = torch.empty(0, dtype=torch.int64)
        self._longest = 0.0

    @torch.no_grad()
    def index(self, encoder: Embedder, candidates: Tensor, codes: Codes) -> None:  # noqa: ARG002
        """candidates: [P] int64, ascending, on the encoder's device."""
        vectors = candidate_vectors(encoder, candidates, self.similarity, self.encode_block)
        self._candidates, self._longest = candidates, largest_norm(vectors)
        self._exact = ExactSearch(vectors, block=self.block)

    @torch.no_grad()
    def search(self, encoder: Embedder, batch: Batch, k: int) -> TopK:
        """The k best candidates; raises RunError where a history's vector is not finite."""
        assert self._exact is not None, "index comes before search"
        queries = history_vectors(encoder, batch, self.similarity, self._longest)
        positions, scores = self._exact.search(queries, k)
        items, missing = self._candidates[positions], k - positions.shape[1]
        if missing > 0:
            items = torch.nn.functional.pad(items, (0, missing))
            scores = torch.nn.functional.pad(scores, (0, missing), value=float("-inf"))
        return TopK(items, scores)

    def report(self) -> dict[str, Any]:
        """What the record keeps of the index."""
        assert self._exact is not None, "index comes before report"
        vectors = self._exact.vectors
        return {
            "candidates": vectors.shape[0],
            "width": vectors.shape[1],
            "bytes": vectors.numel() * vectors.element_size(),
            "device": str(vectors.device),
        }
