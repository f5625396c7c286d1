"""Beam search over the codes that candidates have. What is scored and returned are items, never codes.

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
from grbench_reference.retrievers.inner_product import full_precision, largest

Width = PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None
Softmax = Literal["level", "tree"]
DEFAULT_WIDTH = 50
LOGITS_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 28}
"""8 MiB of float32, since a CPU is twice as fast on what stays near it, and 1 GiB."""


class BeamSearch:
    """The codes of highest probability among those that candidates have, for many users at once.

    A code's score is its log probability, the sum over levels of log softmax: over all K_l codes, whether candidates
    have them or not, or (`softmax` tree) over those that candidates have behind the codes before. As wide as there are
    codes, it is an exhaustive search.
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
        """Raises SuiteError where a width is larger than the pool, or there is not one for each level."""
        self.trie, self.tree = PrefixTrie(candidates, codes), softmax == "tree"
        self.widths = _widths(width, len(codes.sizes), len(candidates))
        logits = max(beams * size for beams, size in zip([1, *self.widths[:-1]], codes.sizes, strict=True))
        limit = LOGITS_AT_ONCE.get(candidates.device.type, LOGITS_AT_ONCE["cpu"])
        self._users = users_at_once or max(1, limit // logits)

    @torch.no_grad()
    def search(self, encoder: Decoder, batch: Batch) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """Some users at a time: (their batch, leaves of the table [b, W] best first, log probabilities [b, W] float32);
        -1 and -inf where a user has fewer. Of equal ones the smaller code comes first.

        Raises RunError naming a user whose logits are not numbers.
        """
        for first in range(0, len(batch.users), self._users):
            some = _rows(batch, slice(first, first + self._users))
            with full_precision(batch.users.device.type):
                leaves, scores = self._search(encoder, some)
            broken = scores.isnan().any(1)
            if bool(broken.any()):
                user = int(some.users[broken][0])
                raise RunError(f"the code logits of user row {user} are not finite (NaN or infinite)")
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            yield some, leaves.gather(1, order), scores

    def _search(self, encoder: Decoder, batch: Batch) -> tuple[Tensor, Tensor]:
        users = torch.arange(len(batch.users), device=batch.users.device).unsqueeze(1)
        logits, state = encoder.start(batch)
        logits = logits.float()
        # All users share the root: no list of children a user.
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
            kept = largest(found, width)  # ascending, so that prefixes stay in the order of their codes
            prefixes, scores = children.gather(1, kept), found.gather(1, kept)
            rows, codes = rows.gather(1, kept), codes.gather(1, kept)
        return prefixes, scores

    def report(self) -> dict[str, Any]:
        """What the record keeps of the index."""
        return {
            "candidates": len(self.trie.positions),
            "codes": self.trie.num_leaves,
            "width": self.widths,
            "softmax": "tree" if self.tree else "level",
            "bytes": self.trie.bytes,
            "device": str(self.trie.positions.device),
        }


class Beam(Retriever):
    """The items of the codes that beam search finds, scored by their code's log probability.

    Items that share a code come out as several items of equal score, which evaluation counts against the target.
    Fewer than k items come out where the beam holds fewer.

    Args:
        width: codes kept at each level, or a list of them, one a level (such as [20, 384]); null = 50, or the whole
            pool where that is smaller. As wide as the pool, the search is exhaustive.
        softmax: level = a code's probability is its share among all codes of its level; tree = among those that
            candidates have behind the codes before, as the loss next_code can learn it.
        users_at_once: searched together; null = as many as have 2^21 logits (GPU: 2^28) a step.
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
        """Raises SuiteError where the width does not fit the pool, or the codes."""
        check_width(self.width, candidates, codes)

    @torch.no_grad()
    def index(self, encoder: Decoder, candidates: Tensor, codes: Codes) -> None:  # noqa: ARG002
        """candidates: [P] int64, ascending. Raises SuiteError where the width does not fit them."""
        self._candidates = candidates
        self._beams = BeamSearch(candidates, codes, self.width, softmax=self.softmax, users_at_once=self.users_at_once)

    @torch.no_grad()
    def search(self, encoder: Decoder, batch: Batch, k: int) -> TopK:
        """The k best items; raises RunError where a user's logits are not finite."""
        assert self._beams is not None, "index comes before search"
        items, scores = [batch.users.new_empty((0, k))], [torch.empty((0, k), device=batch.users.device)]
        for _, leaves, log_probabilities in self._beams.search(encoder, batch):
            beams, positions = self._beams.trie.items(leaves, k)
            empty = positions < 0
            items.append(self._candidates[positions.clamp(min=0)].masked_fill(empty, 0))
            scores.append(log_probabilities.gather(1, beams).masked_fill(empty, -torch.inf))
        return TopK(torch.cat(items), torch.cat(scores))

    def report(self) -> dict[str, Any]:
        """What the record keeps of the index."""
        assert self._beams is not None, "index comes before report"
        return self._beams.report()


def _log_sums(logits: Tensor, beams: Tensor, count: int) -> Tensor:
    """logits, beams [B, C], the beam that each child continues -> [B, count] log of the sum of e^logits of each beam;
    0 where a beam has no child that counts."""
    highest = logits.new_full((len(logits), count), -torch.inf).scatter_reduce(1, beams, logits, "amax")
    highest = highest.masked_fill(highest == -torch.inf, 0)
    sums = torch.zeros_like(highest).scatter_add(1, beams, (logits - highest.gather(1, beams)).exp())
    return torch.where(sums > 0, sums.log() + highest, 0)


def check_width(width: Width, candidates: int, codes: Codes | None) -> None:
    """Raises SuiteError where a beam is wider than so many candidates, or there is not one width for each level."""
    listed = len(width) if isinstance(width, list) else 1
    _widths(width, listed if codes is None else len(codes.sizes), candidates)


def _widths(width: Width, levels: int, pool: int) -> list[int]:
    if width is None:
        return [min(DEFAULT_WIDTH, pool)] * levels
    widths = width if isinstance(width, list) else [width] * levels
    if len(widths) != levels:
        raise SuiteError(
            f"retriever.width: {len(widths)} widths for codes of {levels} levels; give one a level, or one for all"
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
