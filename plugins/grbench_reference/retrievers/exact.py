"""Exact search: every candidate is scored. The reference for approximate retrievers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from grbench.interfaces import Embedder, Retriever
from grbench.types import Batch, Codes, TopK
from grbench_reference.retrievers.exact_search import ExactSearch
from grbench_reference.retrievers.similarity import IndexSimilarity, candidate_vectors, history_vectors, largest_norm
from grbench_reference.retrievers.top_k import padded_top_k


class Exact(Retriever):
    """The candidates with the largest inner product, ties by smaller item id. On CPU and GPU.

    Scores are float32 whatever the encoder's precision. Memory for P candidates of width D: 4 P D bytes, and while
    searching P / 8 bytes for each query in flight (256 on a CPU, 1,024 on a GPU) and one block of scores.

    Args:
        similarity: dot = inner product; cosine = inner product of unit vectors; euclidean = smallest distance first.
        block: candidates scored at once; null = 2,048 on a CPU (fits its cache), 65,536 on a GPU.
        encode_block: number of candidates that the encoder embeds at once.
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
        self._max_norm = 0.0

    @torch.no_grad()
    def index(self, encoder: Embedder, candidates: Tensor, codes: Codes) -> None:  # noqa: ARG002
        """candidates: [P] int64, ascending, on the encoder's device."""
        vectors = candidate_vectors(encoder, candidates, self.similarity, self.encode_block)
        self._candidates, self._max_norm = candidates, largest_norm(vectors)
        self._exact = ExactSearch(vectors, block=self.block)

    @torch.no_grad()
    def search(self, encoder: Embedder, batch: Batch, k: int) -> TopK:
        """The k best candidates; raises RunError where a history's vector is not finite."""
        assert self._exact is not None, "index comes before search"
        queries = history_vectors(encoder, batch, self.similarity, self._max_norm)
        positions, scores = self._exact.search(queries, k)
        return padded_top_k(self._candidates[positions], scores, k)

    def report(self) -> dict[str, Any]:
        """Facts about the index for the record."""
        assert self._exact is not None, "index comes before report"
        vectors = self._exact.vectors
        return {
            "candidates": vectors.shape[0],
            "width": vectors.shape[1],
            "bytes": vectors.numel() * vectors.element_size(),
            "device": str(vectors.device),
        }
