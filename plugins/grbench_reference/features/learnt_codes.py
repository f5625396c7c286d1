"""Codes of items that are learnt with the model that reads and generates them: UniSID's coder inside of a decoder.

Shapes: M items, N items, F fields, L levels, K_l codes of level l, D width, E width of content vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import current, drawn_alike
from grbench.errors import SuiteError
from grbench.registry.option_types import OptionGroup
from grbench.types import Codes
from grbench_reference.codes.item_categories import item_categories
from grbench_reference.codes.item_vectors import EmbeddingNames, chosen_embeddings
from grbench_reference.codes.parallel_coder import CODER, CoderOptions, ItemInputs, ParallelCoder
from grbench_reference.features.code_table import CodeTable
from grbench_reference.features.parts import TABLE_SPREAD, on_device

ITEMS_AT_ONCE = 1 << 16  # whose codes are computed at once, to bound memory
MOST_CONTRASTED = 1024
"""Items of a step that the coder's own losses compare; their memory grows with its square."""


@dataclass(frozen=True, kw_only=True)
class LearntCodesOptions(OptionGroup):
    """Codes learnt with the decoder (UniSID, arXiv 2602.10445), and the coder that makes them.

    Args:
        learn_codes: codes are learnt on with the decoder, from those of the tokenizer uni_sid (the options of both
            coders must be the same), or from random ones where the tokenizer is another; needs `collision: none`.
            Gradients of the decoder's losses reach the coder through the tokens of the history; its own losses are
            added. Validation and search use the codes as they are then.
        coder_embeddings: content embeddings that the coder reads.
    """

    learn_codes: bool = False
    coder_embeddings: EmbeddingNames = "all"
    coder: CoderOptions = CoderOptions()


class LearntCodes(CodeTable):
    """A table of code embeddings, with a coder in place of fixed codes."""

    fields: Tensor
    categories: Tensor

    def __init__(self, data: TrainingData, codes: Codes, width: int, options: LearntCodesOptions) -> None:
        """Raises SuiteError for an embedding or a field that the dataset lacks, and for a tokenizer uni_sid with other
        options of the coder."""
        super().__init__(Codes(codes.table, codes.sizes), width, trained=np.zeros(len(codes.table), bool))
        nn.init.normal_(self.weight, std=TABLE_SPREAD)
        read = item_categories(data.catalogue, options.coder, len(codes.sizes), "encoder")
        hint = "the dataset's own options choose what is read"
        content = chosen_embeddings(data.catalogue, options.coder_embeddings, "encoder.coder_embeddings", hint)
        for number, embedding in enumerate(content):
            on_device(self, f"content_{number}", embedding.values)
        self.contents = len(content)
        on_device(self, "fields", read.fields)
        on_device(self, "categories", read.categories)
        # The tokenizer's own coder starts from its seed; this one from the cell's.
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 31, ())))
        learnt = {name.removeprefix(CODER): value for name, value in codes.tensors.items() if name.startswith(CODER)}
        # The codes that the tokenizer added for items without a vector are none of the coder's.
        sizes = [len(learnt.get(f"codebooks.{level}", range(size))) for level, size in enumerate(codes.sizes)]
        width = sum(embedding.values.shape[1] for embedding in content)
        self.coder = ParallelCoder(width, read.sizes, sizes, options.coder, generator=generator)
        if learnt:
            self._start_from(learnt)
        self._seen: Tensor | None = None

    def codes_of(self, items: Tensor) -> Tensor:
        """items [...] -> [..., L] int64, as the coder makes them now."""
        flat = items.reshape(-1)
        made = [self.coder.codes(*self._inputs(some)[:2]) for some in torch.split(flat, ITEMS_AT_ONCE)]
        return torch.cat(made).view(*items.shape, self.levels) if made else flat.new_zeros(*items.shape, self.levels)

    def sums(self, items: Tensor) -> Tensor:
        """items [M] -> [M, D], the sum of each item's code embeddings, in training with a gradient to the coder."""
        if not (self.training and torch.is_grad_enabled()):
            return super().sums(items)
        self._seen = items
        vectors, fields, _ = self._inputs(items)
        choices = self.coder(vectors, fields).choices
        summed = torch.stack(
            [choice @ self.of_level(level)[: choice.shape[1]] for level, choice in enumerate(choices)]
        ).sum(0)
        return summed * self.scale

    def current(self) -> Codes:
        """The codes of all items."""
        items = torch.arange(len(self.fields), device=self.weight.device)
        table = self.codes_of(items)
        table[0] = 0
        return Codes(table, self.sizes)

    def own_losses(self) -> Mapping[str, Tensor]:
        """The coder's losses of the items that were last embedded, as many as MOST_CONTRASTED, drawn at random; of
        several devices' together, the same on each."""
        if self._seen is None:
            return {}
        items, self._seen = torch.unique(current().concatenated(self._seen[self._seen > 0])), None
        if len(items) < 2:
            return {}
        return drawn_alike(lambda: self._losses_of_some(items))

    def _losses_of_some(self, items: Tensor) -> Mapping[str, Tensor]:
        items = items[torch.randperm(len(items), device=items.device)[:MOST_CONTRASTED]]
        return self.coder.losses(self._inputs(items))[0]

    def _inputs(self, items: Tensor) -> ItemInputs:
        parts = [getattr(self, f"content_{number}").index_select(0, items).float() for number in range(self.contents)]
        vectors = torch.cat([nn.functional.normalize(part, dim=1) for part in parts], 1)
        return ItemInputs(vectors, self.fields[items].long(), self.categories[items])

    def _start_from(self, learnt: Mapping[str, Tensor]) -> None:
        """Takes the weights of the tokenizer's coder. Raises SuiteError where they are of another shape."""
        shapes = {name: value.shape for name, value in self.coder.state_dict().items()}
        if shapes != {name: value.shape for name, value in learnt.items()}:
            raise SuiteError(
                "encoder.learn_codes: the tokenizer uni_sid has a coder of another shape; give both the same "
                "coder_widths, coder_fields, coder_field_width and embeddings, with collision: none and without svd"
            )
        self.coder.load_state_dict(learnt)


def every_code(codes: Codes) -> Codes:
    """Codes of made-up items that have each code of each level, for what is made for the codes that items have now and
    must serve those that they will have."""
    places = torch.arange(max(codes.sizes) + 1)
    return Codes(torch.stack([(places - 1).clamp(0, size - 1) for size in codes.sizes], 1), codes.sizes)
