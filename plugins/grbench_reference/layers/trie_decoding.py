"""Decoding along a prefix trie: a decoder's logits of the codes that may follow each of a user's beams.

All searches and samplers share these two steps: `root` and `expand` give the children of beams with their
probabilities, `Expansion.keep` makes some of the children the next beams.

Shapes: B users, W beams of a user, C children of a user's beams, L levels, K_l codes of level l, l codes of a beam.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from grbench.interfaces import Decoder, DecoderState
from grbench.types import Batch
from grbench_reference.codes.prefix_trie import PrefixTrie


@dataclass(frozen=True)
class Beams:
    """The prefixes that each user's search holds, all of `level + 1` codes.

    prefixes: [B, W], their numbers in the trie, -1 = none; paths: [B, W, l], their codes; rows: [B, W], the row of
    `state` that each continues; state: of the decoder before the last code; log_probabilities: [B, W] float32, -inf
    where none; carried: [B, W] each, what a search keeps of its beams.
    """

    level: int
    prefixes: Tensor
    paths: Tensor
    rows: Tensor
    state: DecoderState
    log_probabilities: Tensor
    carried: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Expansion:
    """The children of each user's beams, in the order of the beams and of their codes.

    level: of the children's last code; size: K_l of it; beams: number of beams that were expanded; parents: [B, C],
    the beam that each child extends; prefixes: [B, C], the children's numbers in the trie, -1 = none; codes: [B, C],
    their last codes; logits: [B, C] float32, of these codes, -inf where none; log_probabilities: [B, C], of the
    prefixes; paths: [B, W, l], of the beams; state: of the decoder after the beams; carried: [B, W] each, of the beams.
    """

    level: int
    size: int
    beams: int
    parents: Tensor
    prefixes: Tensor
    codes: Tensor
    logits: Tensor
    log_probabilities: Tensor
    paths: Tensor
    state: DecoderState
    carried: tuple[Tensor, ...] = field(default=())

    def shares(self, temperature: float = 1.0) -> Tensor:
        """[B, C]: the log probability of each child among the children of its beam, logits divided by the
        temperature; -inf where none."""
        logits = self.logits / temperature
        return logits - log_sums(logits, self.parents, self.beams).gather(1, self.parents)

    def keep(self, columns: Tensor, *carried: Tensor) -> Beams:
        """columns [B, W'] of the children -> the next beams, with what is carried of each, [B, W']."""
        parents, codes = self.parents.gather(1, columns), self.codes.gather(1, columns)
        users = torch.arange(len(columns), device=columns.device).unsqueeze(1)
        return Beams(
            level=self.level,
            prefixes=self.prefixes.gather(1, columns),
            paths=torch.cat([self.paths[users, parents], codes.unsqueeze(2)], 2),
            rows=users * self.beams + parents,
            state=self.state,
            log_probabilities=self.log_probabilities.gather(1, columns),
            carried=carried,
        )


def root(decoder: Decoder, batch: Batch, trie: PrefixTrie, *, tree: bool) -> Expansion:
    """All codes of the first level, the children of one beam without a code.

    tree: probabilities are normalised over the codes that follow a prefix in the trie, not over all codes of a level.
    """
    every, state = decoder.start(batch)
    every = every.float()
    logits, users = every[:, trie.codes[0]], len(every)
    prefixes = torch.arange(logits.shape[1], device=logits.device).expand(users, -1)
    return Expansion(
        level=0,
        size=every.shape[1],
        beams=1,
        parents=torch.zeros_like(prefixes),
        prefixes=prefixes,
        codes=trie.codes[0].expand(users, -1),
        logits=logits,
        log_probabilities=logits - (logits if tree else every).logsumexp(1, keepdim=True),
        paths=prefixes.new_empty((users, 1, 0)),
        state=state,
    )


def expand(decoder: Decoder, beams: Beams, trie: PrefixTrie, *, tree: bool) -> Expansion:
    """One step of the decoder for all beams. tree: as of `root`."""
    level, (users, width) = beams.level + 1, beams.prefixes.shape
    every, state = decoder.step(beams.paths[:, :, -1].reshape(-1), beams.state.select(beams.rows.reshape(-1)))
    every = every.float()
    parents, prefixes = trie.children(level, beams.prefixes)
    codes = trie.codes[level][prefixes.clamp(min=0)]
    rows = torch.arange(users, device=codes.device).unsqueeze(1) * width + parents
    logits = every[rows, codes].masked_fill(prefixes < 0, -torch.inf)
    totals = log_sums(logits, parents, width) if tree else every.logsumexp(1).view(users, width)
    return Expansion(
        level=level,
        size=every.shape[1],
        beams=width,
        parents=parents,
        prefixes=prefixes,
        codes=codes,
        logits=logits,
        log_probabilities=logits + (beams.log_probabilities - totals).gather(1, parents),
        paths=beams.paths,
        state=state,
        carried=beams.carried,
    )


def log_sums(values: Tensor, parents: Tensor, beams: int) -> Tensor:
    """Log-sum-exp of the values of each beam's children: values, parents [B, C] -> [B, beams]; 0 for a beam without
    children."""
    highest = maxima(values, parents, beams)
    highest = highest.masked_fill(highest == -torch.inf, 0)
    sums = torch.zeros_like(highest).scatter_add(1, parents, (values - highest.gather(1, parents)).exp())
    return torch.where(sums > 0, sums.log() + highest, 0)


def maxima(values: Tensor, parents: Tensor, beams: int) -> Tensor:
    """values, parents [B, C] -> [B, beams], the largest value of each beam's children; -inf without children."""
    return values.new_full((len(values), beams), -torch.inf).scatter_reduce(1, parents, values, "amax")
