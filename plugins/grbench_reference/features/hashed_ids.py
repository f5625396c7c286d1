"""Item ids hashed into tables smaller than the catalogue; several tables together distinguish items.

OnePiece (shuoyang2/OnePiece, model.py): an id table of width 32 beside two of 2,000,003 and 3,000,017 rows, width 256,
row = item number modulo rows. All rows are shared by equally many items, and where the numbers of rows have no common
divisor, no two items below their product share a row in every table; a bit-mixing hash guarantees neither.

Shapes: M items, W width of the hashed tables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench.errors import SuiteError
from grbench_reference.features.parts import EmbeddingTable, IdentityPart


class HashedIds(IdentityPart):
    """items [M] -> [M, id_width + tables * W]: a row of the item's own where id_width > 0, and one of each table.

    Rows 0 and 1 of every table stand for padding and for all items without a training event. An id that `dropout` hides
    is hidden in all tables at once.

    Raises SuiteError where two tables would confuse the same items.
    """

    def __init__(
        self,
        trained: np.ndarray,
        rows: Sequence[int],
        *,
        width: int,
        id_width: int = 0,
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        for first, second in itertools.combinations(rows, 2):
            if (shared := math.gcd(first, second)) > 1:
                raise SuiteError(
                    f"encoder.hashed_ids: {first} and {second} rows share the divisor {shared}, so that items which "
                    "share a row of one table often do in the other too; take numbers without one, such as primes"
                )
        super().__init__(trained, dropout=dropout)
        self.moduli = tuple(rows)
        self.own = EmbeddingTable(self.num_rows, id_width, sparse=sparse, unknown=True) if id_width else None
        self.tables = nn.ModuleList(EmbeddingTable(count + 2, width, sparse=sparse, unknown=True) for count in rows)
        self.output_width = id_width + len(rows) * width

    def forward(self, items: Tensor) -> Tensor:
        return torch.cat(self._look_up(items), 1)

    def project(self, items: Tensor, weight: Tensor) -> Tensor:
        """linear(self(items), weight) -> [M, D], table by table, so that nothing is concatenated."""
        vectors = self._look_up(items)
        pieces = torch.split(weight, [each.shape[1] for each in vectors], dim=1)
        projected = functional.linear(vectors[0], pieces[0])
        for some, piece in zip(vectors[1:], pieces[1:], strict=True):
            projected = projected + functional.linear(some, piece)
        return projected

    def _look_up(self, items: Tensor) -> list[Tensor]:
        rows = self.rows(items)
        vectors = [] if self.own is None else [self.own.look_up(rows)]
        for table, modulus in zip(self.tables, self.moduli, strict=True):
            assert isinstance(table, EmbeddingTable)
            vectors.append(table.look_up(torch.where(rows > 1, items % modulus + 2, rows)))
        return vectors
