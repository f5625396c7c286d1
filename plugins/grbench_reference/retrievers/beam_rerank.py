"""Beam search followed by dense re-ranking of the items found: the use of semantic IDs in OnePiece
(github.com/shuoyang2/OnePiece, a solution of the challenge).

Shapes: P candidates.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Protocol

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from grbench.interfaces import Decoder, Embedder, Retriever
from grbench.types import Batch, Codes, TopK
from grbench_reference.retrievers.beam_search import BeamSearch, Softmax, Width, check_search
from grbench_reference.retrievers.selection import SelectionOptions
from grbench_reference.retrievers.similarity import IndexSimilarity, candidate_vectors, history_vectors, largest_norm
from grbench_reference.retrievers.top_k import full_precision, padded_top_k, rank_positions


class HybridEncoder(Decoder, Embedder, Protocol):
    """An encoder with both interfaces."""


class BeamRerank(Retriever):
    """Beam search finds `items` items, which are ranked by dense score + code_weight * log probability of their code;
    ties go to the smaller item id.

    Lists are never longer than `items`. With all candidates in the beam and a `code_weight` of 0 it equals the
    retriever `exact`.

    Args:
        width: beam width, for all levels or as a list with one width per level; null = 50, or the pool size where that
            is smaller.
        items: number of items that are re-ranked, those of the most probable codes (OnePiece: beams of 20, then 384).
        code_weight: weight of the code's log probability in the score; 0 = the dense score alone. Where the dense loss
            divides by a temperature, a weight of that temperature gives both terms the same scale.
        softmax: what a code's probability is normalised over: level = all codes of its level; tree = the codes that
            candidates have after the same prefix, to match the loss next_code with softmax: tree.
        similarity: dot = inner product; cosine = inner product of unit vectors; euclidean = smallest distance first.
        users_at_once: users searched together; null = as many as make 2^21 logits per step (GPU: 2^28).
        encode_block: number of candidates that the encoder embeds at once.
    """

    needs: ClassVar[tuple[type, ...]] = (Decoder, Embedder)

    def __init__(
        self,
        *,
        width: Width = None,
        items: PositiveInt = 384,
        code_weight: Annotated[float, Field(ge=0)] = 0.0,
        softmax: Softmax = "level",
        selection: SelectionOptions = SelectionOptions(),
        similarity: IndexSimilarity = "dot",
        users_at_once: PositiveInt | None = None,
        encode_block: PositiveInt = 16_384,
    ) -> None:
        self.width, self.items, self.selection, self.users_at_once = width, items, selection, users_at_once
        self.code_weight = code_weight
        self.softmax: Softmax = softmax
        self.similarity: IndexSimilarity = similarity
        self.encode_block = encode_block
        self._beams: BeamSearch | None = None
        self._candidates = torch.empty(0, dtype=torch.int64)
        self._vectors = torch.empty(0)
        self._max_norm = 0.0

    def check(self, candidates: int, codes: Codes | None) -> None:
        """Raises SuiteError where a width exceeds the pool, the number of widths is not that of the levels, or options
        do not go together."""
        check_search(self.width, self.selection, candidates, codes)

    def check_encoder(self, encoder: object) -> None:
        """Raises SuiteError where the encoder has no head that the options need."""
        self.selection.check_encoder(encoder)

    @torch.no_grad()
    def index(self, encoder: HybridEncoder, candidates: Tensor, codes: Codes) -> None:
        """candidates: [P] int64, ascending. Raises SuiteError where a width exceeds P or is lacking for a level."""
        self._candidates = candidates
        self._beams = BeamSearch(
            candidates,
            codes,
            self.width,
            softmax=self.softmax,
            options=self.selection,
            users_at_once=self.users_at_once,
        )
        self._vectors = candidate_vectors(encoder, candidates, self.similarity, self.encode_block)
        self._max_norm = largest_norm(self._vectors)

    @torch.no_grad()
    def search(self, encoder: HybridEncoder, batch: Batch, k: int) -> TopK:
        """The k best items; raises RunError where a user's logits or history vector are not finite."""
        assert self._beams is not None, "index comes before search"
        items, scores = [batch.users.new_empty((0, k))], [torch.empty((0, k), device=batch.users.device)]
        ranked = min(self.items, len(self._candidates))
        for some, leaves, log_probabilities in self._beams.search(encoder, batch):
            beams, positions = self._beams.trie.items(leaves, ranked)
            positions, order = positions.sort(dim=1)  # ascending, so that ties go to the smaller item
            added = None
            if self.code_weight:
                added = self.code_weight * log_probabilities.gather(1, beams).gather(1, order)
            with full_precision(batch.users.device.type):
                queries = history_vectors(encoder, some, self.similarity, self._max_norm)
                best, values = rank_positions(queries, self._vectors, positions, min(k, ranked), added=added)
            found = padded_top_k(self._candidates[best.clamp(min=0)].masked_fill(best < 0, 0), values, k)
            items.append(found.items)
            scores.append(found.scores)
        return TopK(torch.cat(items), torch.cat(scores))

    def report(self) -> dict[str, Any]:
        """Facts about the index for the record."""
        assert self._beams is not None, "index comes before report"
        vectors = self._vectors
        beams = self._beams.report()
        return {
            **beams,
            "bytes": beams["bytes"] + vectors.numel() * vectors.element_size(),
            "width": vectors.shape[1],
            "beam_width": self._beams.widths,
        }
