"""Beam search over the prefix trie of the candidates' codes.

Shapes: B users, b users at a time, P candidates, L levels, K_l codes of level l, W beams.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from grbench.errors import RunError, SuiteError
from grbench.interfaces import Decoder, Encoder, optional
from grbench.types import Batch, Codes
from grbench_reference.codes.prefix_trie import PrefixTrie
from grbench_reference.layers.trie_decoding import expand, root
from grbench_reference.retrievers.selection import SelectionOptions
from grbench_reference.retrievers.top_k import full_precision

Width = PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None
Softmax = Literal["level", "tree"]
DEFAULT_WIDTH = 50
LOGITS_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 28}
"""8 MiB of float32 on a CPU, which is twice as fast with logits that fit in its cache; 1 GiB on a GPU."""

VERIFIED = 512
"""Numbers that a verifier has in memory for each beam, about."""


class BeamSearch:
    """Searches the candidates' codes for many users at once; plainly, for those of highest probability.

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
        options: SelectionOptions = SelectionOptions(),
        users_at_once: int | None = None,
    ) -> None:
        """Raises SuiteError where a width exceeds the number of candidates, or there is not one width per level."""
        self.trie, self.tree = PrefixTrie(candidates, codes), softmax == "tree"
        self.widths = _widths(width, len(codes.sizes), len(candidates))
        options.check(self.widths)
        self.selection = options.selection(len(codes.sizes))
        logits = max(beams * size for beams, size in zip([1, *self.widths[:-1]], codes.sizes, strict=True))
        logits = max([logits, *(VERIFIED * beams for beams in options.scored(len(codes.sizes)))])
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
        with optional(encoder, Encoder.one_pass)():
            expansion = root(encoder, batch, self.trie, tree=self.tree)
            keep = self.selection.begin(encoder, batch, self.trie.levels)
        for level, width in enumerate(self.widths):
            beams = keep(expansion, width)
            if level + 1 < self.trie.levels:
                expansion = expand(encoder, beams, self.trie, tree=self.tree)
        return beams.prefixes, beams.log_probabilities

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


def check_search(width: Width, options: SelectionOptions, candidates: int, codes: Codes | None) -> None:
    """codes: None = it is not known yet how many levels they have. Raises SuiteError where a beam is wider than the
    number of candidates, there is not one width per level, or options do not go together."""
    listed = next((len(each) for each in (width, options.verify) if isinstance(each, list)), 1)
    options.check(_widths(width, listed if codes is None else len(codes.sizes), candidates))


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
