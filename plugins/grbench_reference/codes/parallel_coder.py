"""Codes of all levels at once, each by a head of its own, and the contrastive losses by which they are learnt.

After UniSID (arXiv 2602.10445): argmax with a straight-through gradient, at each level a contrastive loss whose
positives share the category at that depth, a contrastive loss of the embedding, a reconstruction. `docs/methods.md`
says what is ours.

Shapes: B items, F categorical fields, W width of a field's rows, D width of vectors, d width of codes and embedding,
L levels, K_l codes of level l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from grbench.registry.option_types import Count, OptionGroup, Share
from grbench_reference.codes.residual_autoencoder import perceptron, squared_distance

SPREAD = 0.02  # of the rows of fields
CODER = "coder."
"""What the names of a trained coder's weights in `Codes.tensors` begin with."""


@dataclass(frozen=True, kw_only=True)
class CoderOptions(OptionGroup):
    """What makes codes of an item's vector and fields.

    Args:
        coder_fields: categorical item fields of one value that are inputs beside the vector: true = all, false = none,
            or their names.
        coder_field_width: width of each of these fields' rows.
        coder_widths: of the layers before the heads; the last is that of a code and of the item's embedding. The
            decoder that reconstructs the vector has them in reverse.
        categories: fields of one value that make up an item's category, coarse first; null = the inputs, those of
            fewest values first. The category at level l of L is the first l / L of them; an item that lacks one has
            none.
        hidden_share: of the vector's dimensions and of the fields, hidden at random in each of an item's two views.
        contrast_temperature: of the contrastive losses.
        code_temperature: of the softmax over a level's codes, whose gradient the argmax has.
        level_weight: of the mean of the levels' contrastive losses.
        embedding_weight: of the contrastive loss between an item's embedding and the sum of its codes' vectors.
        reconstruction_weight: of the squared distance of the vector from what is decoded from that sum.
    """

    coder_fields: bool | tuple[str | int, ...] = True
    coder_field_width: Count = 16
    coder_widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 64)
    categories: tuple[str | int, ...] | None = None
    hidden_share: Share = 0.2
    contrast_temperature: PositiveFloat = 0.1
    code_temperature: PositiveFloat = 0.1
    level_weight: NonNegativeFloat = 1.0
    embedding_weight: NonNegativeFloat = 1.0
    reconstruction_weight: NonNegativeFloat = 0.1


class ItemInputs(NamedTuple):
    """vectors: [B, D], zeros for an item without; fields: [B, F] int64 feature codes; categories: [B, L] int64, those
    of each level, -1 = none."""

    vectors: Tensor
    fields: Tensor
    categories: Tensor


class Coded(NamedTuple):
    """compared: for each level [B, d] of length 1, what its codes are compared with; codes: [B, L]; choices: for each
    level [B, K_l], 1 at the code, with the gradient of the softmax; embedding: [B, d]."""

    compared: list[Tensor]
    codes: Tensor
    choices: list[Tensor]
    embedding: Tensor


class ParallelCoder(nn.Module):
    """A perceptron over an item's inputs, a head and a codebook for each level, a head for the embedding, a decoder.

    A level's code is the one whose vector has the smallest angle with the head's output. Codebooks start as random
    directions, see `start_at`. width: D; field_sizes: numbers of feature codes of the F fields; generator: of the
    initial weights, on the CPU.
    """

    first_rows: Tensor

    def __init__(
        self,
        width: int,
        field_sizes: Sequence[int],
        sizes: Sequence[int],
        options: CoderOptions,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.options, self.sizes = options, tuple(sizes)
        layers = [width + len(field_sizes) * options.coder_field_width, *options.coder_widths]
        inner = layers[-1]

        def drawn(*shape: int, spread: float) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).normal_(std=spread, generator=generator))

        self.rows = drawn(sum(field_sizes), options.coder_field_width, spread=SPREAD)
        first = [0, *accumulate(field_sizes)][: len(field_sizes)]
        self.register_buffer("first_rows", torch.tensor(first, dtype=torch.int64), persistent=False)
        self.trunk = perceptron(layers, generator)
        self.heads = nn.ParameterList(drawn(inner, inner, spread=inner**-0.5) for _ in sizes)
        self.codebooks = nn.ParameterList(drawn(size, inner, spread=1.0) for size in sizes)
        self.embedding_head = drawn(inner, inner, spread=inner**-0.5)
        self.decoder = perceptron([inner, *options.coder_widths[-2::-1], width], generator)

    def trunk_of(self, vectors: Tensor, fields: Tensor) -> Tensor:
        """vectors [B, D], fields [B, F] -> [B, d], what the heads read."""
        rows = functional.embedding(fields + self.first_rows, self.rows)
        states: Tensor = self.trunk(torch.cat([vectors, rows.flatten(1)], 1))
        return functional.relu(states)

    def head(self, level: int, states: Tensor) -> Tensor:
        """states [B, d] -> [B, d] of length 1, what the level's codes are compared with."""
        return functional.normalize(states @ self.heads[level], dim=1)

    def centres(self, level: int) -> Tensor:
        """[K_l, d], the level's codes, of length 1."""
        return functional.normalize(self.codebooks[level], dim=1)

    def forward(self, vectors: Tensor, fields: Tensor) -> Coded:
        """vectors [B, D], fields [B, F] -> the items' codes. Always in single precision: an argmax in a lower one would
        choose other codes than at search."""
        with torch.autocast(vectors.device.type, enabled=False):
            states = self.trunk_of(vectors.float(), fields)
            compared = [self.head(level, states) for level in range(len(self.sizes))]
            similarities = [each @ self.centres(level).T for level, each in enumerate(compared)]
            codes = torch.stack([each.argmax(1) for each in similarities], 1)
            choices = [
                straight_through(each / self.options.code_temperature, codes[:, level])
                for level, each in enumerate(similarities)
            ]
            return Coded(compared, codes, choices, states @ self.embedding_head)

    @torch.no_grad()
    def codes(self, vectors: Tensor, fields: Tensor) -> Tensor:
        """vectors [B, D], fields [B, F] -> [B, L]."""
        with torch.autocast(vectors.device.type, enabled=False):
            states = self.trunk_of(vectors.float(), fields)
            levels = range(len(self.sizes))
            return torch.stack([(self.head(level, states) @ self.centres(level).T).argmax(1) for level in levels], 1)

    def losses(self, inputs: ItemInputs, generator: torch.Generator | None = None) -> tuple[dict[str, Tensor], Coded]:
        """The weighted losses of different items, by name, scalars; and the codes in their first view. generator: on
        the inputs' device, of what the views hide; None = torch's own."""
        options = self.options
        one, other = (self(*self._view(inputs, generator)) for _ in range(2))
        with torch.autocast(inputs.vectors.device.type, enabled=False):
            vectors_of_codes = [
                [choice @ self.centres(level) for level, choice in enumerate(view.choices)] for view in (one, other)
            ]
            levels = [
                contrastive(left, right, same_category(inputs.categories[:, level]), options.contrast_temperature)
                for level, (left, right) in enumerate(zip(*vectors_of_codes, strict=True))
            ]
            ones, others = (torch.stack(each).sum(0) for each in vectors_of_codes)
            own = torch.eye(len(ones), dtype=torch.bool, device=ones.device)
            embedding = contrastive(one.embedding, others, own, options.contrast_temperature)
            reconstruction = squared_distance(self.decoder(ones), inputs.vectors.float())
        terms = {
            "code_levels": options.level_weight * torch.stack(levels).mean(),
            "code_embedding": options.embedding_weight * embedding,
            "code_reconstruction": options.reconstruction_weight * reconstruction,
        }
        return terms, one

    @torch.no_grad()
    def start_at(self, level: int, chosen: Tensor, directions: Tensor, generator: torch.Generator) -> int:
        """Moves the chosen codes [K_l] bool of a level to different ones of the directions [B, d], and returns how
        many; where there are fewer directions, the rest stay as they are. generator: on the CPU."""
        rows = chosen.nonzero()[:, 0][: len(directions)]
        drawn = torch.randperm(len(directions), generator=generator)[: len(rows)]
        self.codebooks[level][rows] = directions[drawn.to(directions.device)]
        return len(rows)

    def _view(self, inputs: ItemInputs, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """An item's vector and fields with a share hidden: zero, and the row of padding."""

        def kept(values: Tensor) -> Tensor:
            drawn = torch.rand(values.shape, generator=generator, device=values.device)
            return drawn >= self.options.hidden_share

        return inputs.vectors.float() * kept(inputs.vectors), inputs.fields * kept(inputs.fields)


def straight_through(logits: Tensor, codes: Tensor) -> Tensor:
    """logits [B, K], codes [B] -> [B, K]: 1 at the code and 0 elsewhere, with the gradient of the softmax."""
    soft = logits.softmax(1)
    return torch.zeros_like(soft).scatter_(1, codes.unsqueeze(1), 1.0) + (soft - soft.detach())


def contrastive(left: Tensor, right: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """-log of the softmax over `right` by cosine similarity to each of `left`, averaged over its positives, then over
    `left`: the supervised contrastive loss (Khosla et al., arXiv 2004.11362, the form that averages outside the log).

    left, right: [B, d]; positives: [B, B] bool, at least one in each row.
    """
    logits = functional.normalize(left, dim=1) @ functional.normalize(right, dim=1).T / temperature
    of_positives = torch.where(positives, logits.log_softmax(1), 0)
    return -(of_positives.sum(1) / positives.sum(1)).mean()


def same_category(categories: Tensor) -> Tensor:
    """categories [B], -1 = none -> [B, B] bool: the item itself, and those of the same category."""
    same = (categories.unsqueeze(1) == categories) & (categories >= 0)
    return same.fill_diagonal_(True)
