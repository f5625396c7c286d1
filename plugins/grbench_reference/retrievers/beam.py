"""Beam search over the prefix trie of the candidates' codes. It returns items, not codes.

Shapes: B users, P candidates, L levels, K_l codes of level l, W beams, C children of a user's beams, R = B W rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from grbench.errors import RunError, SuiteError
from grbench.interfaces import Decoder, Retriever
from grbench.types import Batch, Codes, TopK
from grbench_reference.codes.prefix_trie import PrefixTrie
from grbench_reference.retrievers.top_k import full_precision, largest

Width = PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None
Softmax = Literal["level", "tree"]
DEFAULT_WIDTH = 50
LOGITS_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 28}
"""8 MiB of float32 on a CPU, which is twice as fast with logits that fit in its cache; 1 GiB on a GPU."""


class BeamSearch:
    """The codes of highest probability among the candidates' codes, for many users at once.

    The score of a code is its log probability, the sum over levels of log softmax. With `softmax: level` the softmax is
    over all K_l codes of the level, whether candidates have them or not; with `softmax: tree` over the codes that
    candidates have after the same prefix. A beam as wide as the number of codes makes the search exhaustive.
    """

    def __init__(
        self,
        candidates: Tensor,
        codes: Codes,
        width: Width,
        *,
        softmax: Softmax = "level",
        users_at_once: int | None = None,
    ) -> None:
        """Raises SuiteError where a width exceeds the number of candidates, or there is not one width per level."""
        self.trie, self.tree = PrefixTrie(candidates, codes), softmax == "tree"
        self.widths = _widths(width, len(codes.sizes), len(candidates))
        logits = max(beams * size for beams, size in zip([1, *self.widths[:-1]], codes.sizes, strict=True))
        limit = LOGITS_AT_ONCE.get(candidates.device.type, LOGITS_AT_ONCE["cpu"])
        self._users = users_at_once or max(1, limit // logits)

    @torch.no_grad()
    def search(self, encoder: Decoder, batch: Batch) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """Yields, for a block of b users at a time: (their batch, leaves of the trie [b, W], best first, their log
        probabilities [b, W] float32), padded with -1 and -inf. Ties go to the smaller code.

        Raises RunError naming a user whose logits are NaN.
        """
        for first in range(0, len(batch.users), self._users):
            some = _rows(batch, slice(first, first + self._users))
            with full_precision(batch.users.device.type):
                leaves, scores = self._search(encoder, some)
            not_finite = scores.isnan().any(1)
            if bool(not_finite.any()):
                user = int(some.users[not_finite][0])
                raise RunError(f"the code logits of user row {user} are not finite (NaN or infinite)")
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            yield some, leaves.gather(1, order), scores

    def _search(self, encoder: Decoder, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> leaves and log probabilities [b, W], unsorted."""
        users = torch.arange(len(batch.users), device=batch.users.device).unsqueeze(1)
        logits, state = encoder.start(batch)
        logits = logits.float()
        # All users start at the root, whose children are all codes of the first level.
        found = logits[:, self.trie.codes[0]]
        found = found - (found if self.tree else logits).logsumexp(1, keepdim=True)
        prefixes = largest(found, self.widths[0])
        scores = found.gather(1, prefixes)
        rows, codes = users.expand_as(prefixes), self.trie.codes[0][prefixes]
        for level, width in enumerate(self.widths[1:], start=1):
            logits, state = encoder.step(codes.reshape(-1), state.select(rows.reshape(-1)))
            logits = logits.float()
            beams, children = self.trie.children(level, prefixes)
            rows, codes = users * prefixes.shape[1] + beams, self.trie.codes[level][children.clamp(min=0)]
            found = logits[rows, codes].masked_fill(children < 0, -torch.inf)
            totals = _log_sums(found, beams, prefixes.shape[1]) if self.tree else logits.logsumexp(1).view_as(prefixes)
            found = found + (scores - totals).gather(1, beams)
            best = largest(found, width)  # ascending columns, so that prefixes stay in the order of their codes
            prefixes, scores = children.gather(1, best), found.gather(1, best)
            rows, codes = rows.gather(1, best), codes.gather(1, best)
        return prefixes, scores

    def report(self) -> dict[str, Any]:
        """Facts about the index for the record."""
        return {
            "candidates": len(self.trie.positions),
            "codes": self.trie.num_leaves,
            "width": self.widths,
            "softmax": "tree" if self.tree else "level",
            "bytes": self.trie.bytes,
            "device": str(self.trie.positions.device),
        }


class Beam(Retriever):
    """The items whose codes beam search generates, scored by their code's log probability.

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
        self, *, width: Width = None, softmax: Softmax = "level", users_at_once: PositiveInt | None = None
    ) -> None:
        self.width, self.users_at_once = width, users_at_once
        self.softmax: Softmax = softmax
        self._beams: BeamSearch | None = None
        self._candidates = torch.empty(0, dtype=torch.int64)

    def check(self, candidates: int, codes: Codes | None) -> None:
        """Raises SuiteError where a width exceeds the pool, or the number of widths is not that of the levels."""
        check_width(self.width, candidates, codes)

    @torch.no_grad()
    def index(self, encoder: Decoder, candidates: Tensor, codes: Codes) -> None:  # noqa: ARG002
        """candidates: [P] int64, ascending. Raises SuiteError where a width exceeds P or is lacking for a level."""
        self._candidates = candidates
        self._beams = BeamSearch(candidates, codes, self.width, softmax=self.softmax, users_at_once=self.users_at_once)

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


def _log_sums(logits: Tensor, beams: Tensor, count: int) -> Tensor:
    """Log-sum-exp of the logits of each beam's children: logits [B, C] and beams [B, C], the beam that each child
    extends -> [B, count]; 0 for a beam without children."""
    highest = logits.new_full((len(logits), count), -torch.inf).scatter_reduce(1, beams, logits, "amax")
    highest = highest.masked_fill(highest == -torch.inf, 0)
    sums = torch.zeros_like(highest).scatter_add(1, beams, (logits - highest.gather(1, beams)).exp())
    return torch.where(sums > 0, sums.log() + highest, 0)


def check_width(width: Width, candidates: int, codes: Codes | None) -> None:
    """Raises SuiteError where a beam is wider than the number of candidates, or there is not one width per level."""
    listed = len(width) if isinstance(width, list) else 1
    _widths(width, listed if codes is None else len(codes.sizes), candidates)


def _widths(width: Width, levels: int, pool: int) -> list[int]:
    if width is None:
        return [min(DEFAULT_WIDTH, pool)] * levels
    widths = width if isinstance(width, list) else [width] * levels
    if len(widths) != levels:
        raise SuiteError(
            f"retriever.width: {len(widths)} widths for codes of {levels} levels; give one per level, or one for all"
        )
    if max(widths) > pool:
        raise SuiteError(
            f"retriever.width: a beam of {max(widths)} is wider than the pool of {pool} candidates; "
            f"it can be at most {pool}, which makes the search exhaustive"
        )
    return widths


def _rows(batch: Batch, rows: slice) -> Batch:
    return dataclasses.replace(
        batch, **{field.name: getattr(batch, field.name)[rows] for field in dataclasses.fields(batch)}
    )
