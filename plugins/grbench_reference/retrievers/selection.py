"""Which children of a user's beams become the next beams: the most probable, a random draw, diverse groups, or those
that a head of the encoder prefers.

Shapes: B users, W beams of a user, C children of a user's beams, K_l codes of level l.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Protocol

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from grbench.errors import SuiteError
from grbench.interfaces import Decoder
from grbench.registry.option_types import Count, OptionGroup, Seed
from grbench.types import Batch
from grbench_reference.layers.interfaces import PathValuer, PathVerifier
from grbench_reference.layers.path_heads import PathContext
from grbench_reference.layers.path_sampling import perturbed
from grbench_reference.layers.trie_decoding import Beams, Expansion
from grbench_reference.retrievers.top_k import largest

KeepBeams = Callable[[Expansion, int], Beams]
"""Makes at most so many of each user's children the next beams; at the last level each of them once. It keeps nothing
between calls: what beams carry is in `Beams.carried`."""


class Selection(Protocol):
    """How a search selects its beams."""

    def begin(self, decoder: Decoder, batch: Batch, levels: int) -> KeepBeams:
        """Called for each block of users, in the pass in which the decoder has begun. levels: L."""


class MostProbable:
    """Plain beam search; ties go to the smaller code."""

    def begin(self, decoder: Decoder, batch: Batch, levels: int) -> KeepBeams:  # noqa: ARG002
        """See Selection."""
        return lambda expansion, width: expansion.keep(largest(expansion.log_probabilities, width))


@dataclass(frozen=True)
class Drawn:
    """Codes drawn without replacement, by stochastic beam search (arXiv 1903.06059): beams are those of the largest
    perturbed log probability. Each code of a path is drawn from the softmax of the logits, divided by the temperature,
    of those that may follow its prefix."""

    temperature: float
    seed: int

    def begin(self, decoder: Decoder, batch: Batch, levels: int) -> KeepBeams:  # noqa: ARG002
        """See Selection."""
        return partial(self._keep, batch.users)

    def _keep(self, users: Tensor, expansion: Expansion, width: int) -> Beams:
        noisy, plain = perturbed(expansion, expansion.shares(self.temperature), users, self.seed)
        columns = largest(noisy, width)
        return expansion.keep(columns, noisy.gather(1, columns), plain.gather(1, columns))


@dataclass(frozen=True)
class DiverseGroups:
    """Diverse beam search (arXiv 1610.02424): groups of beams choose one after another, each the best of log
    probability - penalty * number of beams of earlier groups that chose the same code at this level.

    Differs from the paper: at the last level no group takes a path that an earlier one has, so that no item is listed
    twice. Groups are as large as each other, up to one beam.
    """

    count: int
    penalty: float

    def begin(self, decoder: Decoder, batch: Batch, levels: int) -> KeepBeams:  # noqa: ARG002
        """See Selection."""
        return partial(self._keep, levels)

    def _keep(self, levels: int, expansion: Expansion, width: int) -> Beams:
        codes, prefixes, last = expansion.codes, expansion.prefixes, expansion.level + 1 == levels
        chosen_before = expansion.log_probabilities.new_zeros(len(codes), expansion.size)
        group_of = expansion.carried[0].gather(1, expansion.parents) if expansion.carried else None
        columns, kept = [codes[:, :0]], [codes[:, :0].bool()]
        for group in range(self.count):
            scores = expansion.log_probabilities
            if group_of is not None:
                scores = scores.masked_fill(group_of != group, -torch.inf)
            if last and group:
                before = prefixes.gather(1, torch.cat(columns, 1)).masked_fill(~torch.cat(kept, 1), -1)
                scores = scores.masked_fill(_contained(prefixes, before), -torch.inf)
            size = width // self.count + (group < width % self.count)
            chosen = largest(scores - self.penalty * chosen_before.gather(1, codes), size)
            real = scores.gather(1, chosen) > -torch.inf
            chosen_before = chosen_before.scatter_add(1, codes.gather(1, chosen), real.to(scores.dtype))
            columns.append(chosen)
            kept.append(real)
        numbers = torch.arange(self.count, device=codes.device)
        groups = numbers.repeat_interleave(torch.tensor([each.shape[1] for each in columns[1:]], device=codes.device))
        beams = expansion.keep(torch.cat(columns, 1), groups.expand(len(codes), -1))
        real = torch.cat(kept, 1)
        return replace(
            beams,
            prefixes=beams.prefixes.masked_fill(~real, -1),
            log_probabilities=beams.log_probabilities.masked_fill(~real, -torch.inf),
        )


@dataclass(frozen=True)
class VerifierGuided:
    """Beam search guided by a verifier (Promise, arXiv 2601.04674): of the `wide` most probable children, those that
    the encoder's verifier scores highest become the beams; ties go to the more probable one.

    wide: one number a level; weight: of the verifier's score of a whole path, which is added to its log probability.
    """

    wide: Sequence[int]
    weight: float

    def begin(self, decoder: Decoder, batch: Batch, levels: int) -> KeepBeams:
        """See Selection."""
        assert isinstance(decoder, PathVerifier), "check_encoder comes first"
        return partial(self._keep, decoder, decoder.path_context(batch), levels)

    def _keep(
        self, verifier: PathVerifier, context: PathContext, levels: int, expansion: Expansion, width: int
    ) -> Beams:
        probable = largest(expansion.log_probabilities, max(width, self.wide[expansion.level]))
        likelihood = expansion.log_probabilities.gather(1, probable)
        scores = verifier.path_scores(expansion.keep(probable).paths, context)
        scores = scores.masked_fill(likelihood == -torch.inf, -torch.inf)
        by_likelihood = likelihood.sort(dim=1, descending=True, stable=True).indices
        order = scores.gather(1, by_likelihood).sort(dim=1, descending=True, stable=True).indices[:, :width]
        best = by_likelihood.gather(1, order).sort(dim=1).values
        beams = expansion.keep(probable.gather(1, best))
        if expansion.level + 1 == levels and self.weight:
            ranked = beams.log_probabilities + self.weight * scores.gather(1, best)
            beams = replace(beams, log_probabilities=ranked)
        return beams


@dataclass(frozen=True)
class ValueGuided:
    """Beam search guided by a value head (V-STAR, arXiv 2602.10699): children of a beam count the more, the higher the
    beam's value and the less certain its next code: log probability + weight * (value + exploration * uncertainty).

    Uncertainty is the entropy of the next code among those that may follow, as a share of the largest possible. The
    paper says what it adds up, not how its budget of expansions is spent: here a level's beams share its width.
    """

    weight: float
    exploration: float

    def begin(self, decoder: Decoder, batch: Batch, levels: int) -> KeepBeams:  # noqa: ARG002
        """See Selection."""
        assert isinstance(decoder, PathValuer), "check_encoder comes first"
        return partial(self._keep, decoder)

    def _keep(self, valuer: PathValuer, expansion: Expansion, width: int) -> Beams:
        shares, parents = expansion.shares(), expansion.parents
        zeros = shares.new_zeros(len(shares), expansion.beams)
        entropy = zeros.scatter_add(1, parents, -torch.special.xlogy(shares.exp(), shares.exp()))
        children = zeros.scatter_add(1, parents, (expansion.prefixes >= 0).to(zeros.dtype))
        uncertainty = entropy / children.log().clamp(min=math.log(2))  # a single child has no entropy
        guide = valuer.values(expansion.state).view_as(zeros) + self.exploration * uncertainty
        return expansion.keep(largest(expansion.log_probabilities + self.weight * guide.gather(1, parents), width))


NEEDED = {"seed": "temperature", "group_penalty": "groups", "rank_weight": "verify", "exploration": "value_weight"}
"""Options that say how another one works, with that one."""


@dataclass(frozen=True, kw_only=True)
class SelectionOptions(OptionGroup):
    """Which beams a search keeps at each level; the most probable where none of these options is given.

    Args:
        temperature: draw the beams without replacement (stochastic beam search, arXiv 1903.06059), each code with the
            probability of its logit divided by this among those that may follow its prefix; lists are ranked by
            log probability all the same. null = no draw.
        seed: of the draw; null = the cell's. A user's draw depends on neither batch nor order.
        groups: diverse beam search (arXiv 1610.02424) with so many groups of beams; at most `width`.
        group_penalty: what a code's log probability loses for each beam of an earlier group that has it at this level.
        verify: verifier-guided beam search (Promise, arXiv 2601.04674): so many of the most probable beams, for all
            levels or as a list, are scored by the encoder's verifier, which keeps `width` of them; null = no verifier.
        rank_weight: how much the verifier's score of a whole path adds to its log probability, by which items are
            ranked.
        value_weight: value-guided beam search (V-STAR, arXiv 2602.10699; .1 there, with a `width` that begins with 8):
            how much value and uncertainty of a beam add to the log probability of its children; null = none.
        exploration: weight of the uncertainty against the value.
    """

    temperature: Annotated[float, Field(gt=0)] | None = None
    seed: Seed | None = None
    groups: Count = 1
    group_penalty: Annotated[float, Field(ge=0)] = 0.5
    verify: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    rank_weight: Annotated[float, Field(ge=0)] = 0.0
    value_weight: Annotated[float, Field(ge=0)] | None = None
    exploration: Annotated[float, Field(ge=0)] = 1.0

    def check(self, widths: Sequence[int]) -> None:
        """widths: of each level. Raises SuiteError where options exclude each other, have no effect or do not fit
        these."""
        chosen = {
            "temperature": self.temperature is not None,
            "groups": self.groups > 1,
            "verify": self.verify is not None,
            "value_weight": self.value_weight is not None,
        }
        for name, needed in NEEDED.items():
            if getattr(self, name) != getattr(SelectionOptions, name) and not chosen[needed]:
                raise SuiteError(f"retriever.{name}: it has no effect without {needed}; set {needed}, or leave it out")
        named = [name for name, given in chosen.items() if given]
        if len(named) > 1:
            raise SuiteError(f"retriever.{named[0]}: it excludes {named[1]}; a search has one of {', '.join(chosen)}")
        if self.groups > min(widths):
            raise SuiteError(
                f"retriever.groups: {self.groups} groups of a beam of {min(widths)}; each needs a beam of its own"
            )
        if isinstance(self.verify, list) and len(self.verify) != len(widths):
            raise SuiteError(
                f"retriever.verify: {len(self.verify)} numbers for codes of {len(widths)} levels; give one per level, "
                "or one for all"
            )
        for scored, kept in zip(self.scored(len(widths)), widths, strict=False):
            if scored < kept:
                raise SuiteError(
                    f"retriever.verify: of {scored} beams that are scored, {kept} cannot be kept; give at least `width`"
                )

    def check_encoder(self, encoder: object) -> None:
        """Raises SuiteError where the encoder has no head that these options need."""
        verifies = isinstance(encoder, PathVerifier) and encoder.verifies_paths()
        if self.verify is not None and not verifies:
            raise SuiteError("retriever.verify: the encoder has no verifier; sid_decoder has one with `verifier: true`")
        values = isinstance(encoder, PathValuer) and encoder.values_paths()
        if self.value_weight is not None and not values:
            raise SuiteError(
                "retriever.value_weight: the encoder has no value head; sid_decoder has one with `value_head: true`"
            )

    def scored(self, levels: int) -> list[int]:
        """How many beams of each level the verifier scores; none without one."""
        if self.verify is None:
            return []
        return self.verify if isinstance(self.verify, list) else [self.verify] * levels

    def selection(self, levels: int) -> Selection:
        """What these options choose. The seed of the cell is that of torch's generator, which the cell has set."""
        if self.temperature is not None:
            return Drawn(self.temperature, torch.initial_seed() if self.seed is None else self.seed)
        if self.verify is not None:
            return VerifierGuided(self.scored(levels), self.rank_weight)
        if self.value_weight is not None:
            return ValueGuided(self.value_weight, self.exploration)
        return DiverseGroups(self.groups, self.group_penalty) if self.groups > 1 else MostProbable()


def _contained(values: Tensor, among: Tensor) -> Tensor:
    """values [B, C], among [B, n] -> [B, C] bool: whether a value is among those of its row."""
    among = among.sort(dim=1).values
    place = torch.searchsorted(among, values.contiguous()).clamp(max=among.shape[1] - 1)
    return among.gather(1, place) == values
