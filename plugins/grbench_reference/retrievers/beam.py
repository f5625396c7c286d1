"""Beam search over the prefix trie of the candidates' codes. It returns items, not codes.

Shapes: P candidates.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from grbench.interfaces import Decoder, Retriever
from grbench.types import Batch, Codes, TopK
from grbench_reference.retrievers.beam_search import BeamSearch, Softmax, Width, check_search
from grbench_reference.retrievers.selection import SelectionOptions


class Beam(Retriever):
    """The items whose codes beam search generates, ranked by their code's log probability.

    Items with a colliding code have equal scores; evaluation counts such ties against the target (pessimistic rank).
    The list is shorter than k where the beams hold fewer than k items.

    Args:
        width: beam width, for all levels or as a list with one width per level (such as [20, 384]); null = 50, or the
            pool size where that is smaller. With a beam as wide as the pool the search is exhaustive.
        softmax: what a code's probability is normalised over: level = all codes of its level; tree = the codes that
            candidates have after the same prefix, to match the loss next_code with softmax: tree.
        users_at_once: users searched together; null = as many as make 2^21 logits per step (GPU: 2^28).
    """

    needs: ClassVar[tuple[type, ...]] = (Decoder,)

    def __init__(
        self,
        *,
        width: Width = None,
        softmax: Softmax = "level",
        selection: SelectionOptions = SelectionOptions(),
        users_at_once: PositiveInt | None = None,
    ) -> None:
        self.width, self.selection, self.users_at_once = width, selection, users_at_once
        self.softmax: Softmax = softmax
        self._beams: BeamSearch | None = None
        self._candidates = torch.empty(0, dtype=torch.int64)

    def check(self, candidates: int, codes: Codes | None) -> None:
        """Raises SuiteError where a width exceeds the pool, the number of widths is not that of the levels, or options
        do not go together."""
        check_search(self.width, self.selection, candidates, codes)

    def check_encoder(self, encoder: object) -> None:
        """Raises SuiteError where the encoder has no head that the options need."""
        self.selection.check_encoder(encoder)

    @torch.no_grad()
    def index(self, encoder: Decoder, candidates: Tensor, codes: Codes) -> None:  # noqa: ARG002
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

    @torch.no_grad()
    def search(self, encoder: Decoder, batch: Batch, k: int) -> TopK:
        """The k best items, at most; raises RunError where a user's logits are not finite."""
        assert self._beams is not None, "index comes before search"
        items, scores = [batch.users.new_empty((0, k))], [torch.empty((0, k), device=batch.users.device)]
        for _, leaves, log_probabilities in self._beams.search(encoder, batch):
            beams, positions = self._beams.trie.items(leaves, k)
            empty = positions < 0
            items.append(self._candidates[positions.clamp(min=0)].masked_fill(empty, 0))
            scores.append(log_probabilities.gather(1, beams).masked_fill(empty, -torch.inf))
        return TopK(torch.cat(items), torch.cat(scores))

    def report(self) -> dict[str, Any]:
        """Facts about the index for the record."""
        assert self._beams is not None, "index comes before report"
        return self._beams.report()
