"""Which children of a user's beams become the next beams: the most probable, a random draw, or diverse groups.

Shapes: B users, W beams of a user, C children of a user's beams, K_l codes of level l.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor

from grbench.errors import SuiteError
from grbench.registry.option_types import Count, OptionGroup, Seed
from grbench_reference.layers.path_sampling import perturbed
from grbench_reference.layers.trie_decoding import Beams, Expansion
from grbench_reference.retrievers.top_k import largest


class Selection(Protocol):
    """Selects the next beams of a search. It keeps nothing between calls: what beams carry is in `Beams.carried`."""

    def keep(self, expansion: Expansion, width: int, users: Tensor, *, last: bool) -> Beams:
        """At most `width` of each user's children, each once at the last level. users: [B], rows of the store."""


class MostProbable:
    """Plain beam search; ties go to the smaller code."""

    def keep(self, expansion: Expansion, width: int, users: Tensor, *, last: bool) -> Beams:  # noqa: ARG002
        """See Selection."""
        return expansion.keep(largest(expansion.log_probabilities, width))


@dataclass(frozen=True)
class Drawn:
    """Codes drawn without replacement, by stochastic beam search (arXiv 1903.06059): beams are those of the largest
    perturbed log probability. Each code of a path is drawn from the softmax of the logits, divided by the temperature,
    of those that may follow its prefix."""

    temperature: float
    seed: int

    def keep(self, expansion: Expansion, width: int, users: Tensor, *, last: bool) -> Beams:  # noqa: ARG002
        """See Selection."""
        noisy, plain = perturbed(expansion, expansion.shares(self.temperature), users, self.seed)
        columns = largest(noisy, width)
        return expansion.keep(columns, noisy.gather(1, columns), plain.gather(1, columns))


@dataclass(frozen=True)
class Groups:
    """Diverse beam search (arXiv 1610.02424): groups of beams choose one after another, each the best of log
    probability - penalty * number of beams of earlier groups that chose the same code at this level.

    Differs from the paper: at the last level no group takes a path that an earlier one has, so that no item is listed
    twice. Groups are as large as each other, up to one beam.
    """

    count: int
    penalty: float

    def keep(self, expansion: Expansion, width: int, users: Tensor, *, last: bool) -> Beams:  # noqa: ARG002
        """See Selection."""
        codes, prefixes = expansion.codes, expansion.prefixes
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
    """

    temperature: Annotated[float, Field(gt=0)] | None = None
    seed: Seed | None = None
    groups: Count = 1
    group_penalty: Annotated[float, Field(ge=0)] = 0.5

    def check(self, width: int) -> None:
        """width: the smallest of the levels. Raises SuiteError where options exclude each other or do not fit it."""
        if self.temperature is not None and self.groups > 1:
            raise SuiteError(
                "retriever.temperature: beams are drawn or kept in groups, not both; leave out one of them"
            )
        if self.groups > width:
            raise SuiteError(
                f"retriever.groups: {self.groups} groups of a beam of {width}; each group needs a beam of its own"
            )

    def selection(self) -> Selection:
        """What these options choose. The seed of the cell is that of torch's generator, which the cell has set."""
        if self.temperature is not None:
            return Drawn(self.temperature, torch.initial_seed() if self.seed is None else self.seed)
        return Groups(self.groups, self.group_penalty) if self.groups > 1 else MostProbable()


def _contained(values: Tensor, among: Tensor) -> Tensor:
    """values [B, C], among [B, n] -> [B, C] bool: whether a value is among those of its row."""
    among = among.sort(dim=1).values
    place = torch.searchsorted(among, values.contiguous()).clamp(max=among.shape[1] - 1)
    return among.gather(1, place) == values
