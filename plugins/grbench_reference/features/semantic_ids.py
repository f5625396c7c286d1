"""Semantic IDs as a feature of items, beside the id or in its place (paper, section 7: first and second place).

Shapes: M items, N items, L levels, W field width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from grbench.data.store import FeatureTable, Field
from grbench.errors import SuiteError
from grbench.types import FIRST_VALUE, PADDING, Codes
from grbench_reference.codes.random_k import draw, neighbours_of
from grbench_reference.features.parts import FusedFields


class SemanticIds(FusedFields):
    """Each level of the codes as a categorical field: items [M] -> [M, L * W], one table for all levels.

    As with any field, padding has its own row, and codes that no trained item has share their level's unknown row,
    which `dropout` trains. In training, codes are drawn by the tokenizer's `random_k`, where it has one.

    trained: [N+1] bool. Raises SuiteError for codes that are the item's id (one level, a code of its own each item).
    """

    def __init__(
        self, codes: Codes, trained: np.ndarray, *, width: int, dropout: float = 0.0, sparse: bool = False
    ) -> None:
        if len(codes.sizes) == 1 and codes.sizes[0] >= len(codes.table) - 1:
            raise SuiteError(
                "encoder.semantic_ids: this tokenizer gives every item a code of its own (one level, as large as the "
                "catalogue), which says no more than its id; take a tokenizer whose items share codes, such as "
                "rq_kmeans or codes_file, or leave the option out"
            )
        values = codes.table.int() + FIRST_VALUE
        values[0] = PADDING
        fields = tuple(Field(f"level {level}", size + FIRST_VALUE, level) for level, size in enumerate(codes.sizes))
        super().__init__(
            FeatureTable(fields, values.numpy()), fields, trained, width=width, dropout=dropout, sparse=sparse
        )
        neighbours = neighbours_of(codes)
        for level, table in enumerate(neighbours):
            self.register_buffer(f"neighbours_{level}", table, persistent=False)
        self.regularised = len(neighbours)

    def read(self, entities: Tensor) -> Tensor:
        """items [M] -> [M, L] field codes; in training drawn by `random_k`."""
        codes = super().read(entities)
        if not (self.training and self.regularised):
            return codes
        tables = [getattr(self, f"neighbours_{level}") for level in range(self.regularised)]
        drawn = draw((codes - FIRST_VALUE).clamp(min=0).long(), tables) + FIRST_VALUE
        return torch.where(codes >= FIRST_VALUE, drawn, codes)
