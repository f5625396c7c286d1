"""The items that beam search finds, ranked anew by the dense score: OnePiece's way to use semantic ids.

Shapes: B users, P candidates, m items a user that are scored, D width.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Protocol

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from grbench.interfaces import Decoder, Embedder, Retriever
from grbench.types import Batch, Codes, TopK
from grbench_reference.retrievers.beam import BeamSearch, Softmax, Width, check_width
from grbench_reference.retrievers.inner_product import full_precision, rank_positions
from grbench_reference.retrievers.vectors import IndexSimilarity, candidate_vectors, history_vectors, largest_norm


class Hybrid(Decoder, Embedder, Protocol):
    """Both interfaces on one encoder."""


class BeamRerank(Retriever):
    """The first items of the beam, best code first, by inner product with the history and, where asked for, by their
    code's log probability too; of equal ones, the lower first.

    A longer list than `items` is never returned. With every candidate in the beam and a `code_weight` of 0 it is the
    retriever `exact`.

    Args:
        width: codes kept at each level, or a list of them, one a level; null = 50, or the pool where that is smaller.
        items: of the beam that are ranked anew (OnePiece: a beam of 20, then 384).
        code_weight: times the log probability of an item's code is added to its dense score. 0 = the beam only chooses
            what is ranked. A dense score that was learnt divided by a temperature counts as much as the code at a
            weight of that temperature.
        softmax: level = a code's probability is its share among all codes of its level; tree = among those that
            candidates have behind the codes before, as the loss next_code can learn it.
        similarity: dot = inner product; cosine = of vectors of length 1; euclidean = nearest first.
        users_at_once: searched together; null = as many as have 2^21 logits (GPU: 2^28) a step.
        encode_block: candidates that the encoder is given at once.
    """

    needs: ClassVar[tuple[type, ...]] = (Decoder, Embedder)

    def __init__(
        self,
        *,
        width: Width = None,
        items: PositiveInt = 384,
        code_weight: Annotated[float, Field(ge=0)] = 0.0,
        softmax: Softmax = "level",
        similarity: IndexSimilarity = "dot",
        users_at_once: PositiveInt | None = None,
        encode_block: PositiveInt = 16_384,
    ) -> None:
        self.width, self.items, self.users_at_once = width, items, users_at_once
        self.code_weight = code_weight
        self.softmax: Softmax = softmax
        self.similarity: IndexSimilarity = similarity
        self.encode_block = encode_block
        self._beams: BeamSearch | None = None
        self._candidates = torch.empty(0, dtype=torch.int64)
        self._vectors = torch.empty(0)
        self._longest = 0.0

    def check(self, candidates: int, codes: Codes | None) -> None:
        """Raises SuiteError where the width does not fit the pool, or the codes."""
        check_width(self.width, candidates, codes)

    @torch.no_grad()
    def index(self, encoder: Hybrid, candidates: Tensor, codes: Codes) -> None:
        """candidates: [P] int64, ascending. Raises SuiteError where the width does not fit them."""
        self._candidates = candidates
        self._beams = BeamSearch(candidates, codes, self.width, softmax=self.softmax, users_at_once=self.users_at_once)
        self._vectors = candidate_vectors(encoder, candidates, self.similarity, self.encode_block)
        self._longest = largest_norm(self._vectors)

    @torch.no_grad()
    def search(self, encoder: Hybrid, batch: Batch, k: int) -> TopK:
        """The k best items; raises RunError where a user's logits or history vector are not finite."""
        assert self._beams is not None, "index comes before search"
        items, scores = [batch.users.new_empty((0, k))], [torch.empty((0, k), device=batch.users.device)]
        ranked = min(self.items, len(self._candidates))
        for some, leaves, log_probabilities in self._beams.search(encoder, batch):
            beams, positions = self._beams.trie.items(leaves, ranked)
            positions, order = positions.sort(dim=1)  # of the pool, so that of equal scores the lower item comes first
            added = None
            if self.code_weight:
                added = self.code_weight * log_probabilities.gather(1, beams).gather(1, order)
            with full_precision(batch.users.device.type):
                queries = history_vectors(encoder, some, self.similarity, self._longest)
                best, values = rank_positions(queries, self._vectors, positions, min(k, ranked), added=added)
            found = self._candidates[best.clamp(min=0)].masked_fill(best < 0, 0)
            items.append(torch.nn.functional.pad(found, (0, k - found.shape[1])))
            scores.append(torch.nn.functional.pad(values, (0, k - found.shape[1]), value=-torch.inf))
        return TopK(torch.cat(items), torch.cat(scores))

    def report(self) -> dict[str, Any]:
        """What the record keeps of the index."""
        assert self._beams is not None, "index comes before report"
        vectors = self._vectors
        found = self._beams.report()
        return {
            **found,
            "bytes": found["bytes"] + vectors.numel() * vectors.element_size(),
            "width": vectors.shape[1],
            "beam_width": self._beams.widths,
        }
