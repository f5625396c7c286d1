"""The parts of a token: item id, categorical fields, content embeddings (paper, equation 3). `fusion.py` fuses them.

All categorical fields share ONE table, so that an entity costs one gather whatever its number of fields. Only values
that training has seen own a row: any other value, and any item without a training event, takes its field's `unknown`
row, so that a cold item is never mistaken for padding or for a missing value.

Shapes: M entities (items or users), C feature columns, F fields, R rows of the fused table, W field width,
D width of the token, d embedding width.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench.data.store import Embedding, FeatureTable, Field
from grbench.distributed.row_table import RowTable
from grbench.types import FIRST_VALUE, MISSING, PADDING, UNKNOWN
from grbench_reference.kernels.embedding import distinct, distinct_rows, gather_rows, sum_rows

TABLE_SPREAD = 0.02  # of every table, whatever its length: a spread that shrinks with the rows starves large tables
ENTITIES_AT_ONCE = 1 << 20  # when a catalogue larger than memory is read through


def on_device(module: nn.Module, name: str, array: np.ndarray) -> None:
    """Registers a memory-mapped column as a buffer: not copied on the CPU, moved with the module, never saved."""
    with warnings.catch_warnings():  # torch warns that the map is read only; nothing writes to it
        warnings.filterwarnings("ignore", message=".*not writable.*")
        module.register_buffer(name, torch.from_numpy(np.asarray(array)), persistent=False)


class EmbeddingTable(RowTable):
    """An embedding table whose rows start with one fixed spread; row 0 is padding, always zero.

    sparse: gradients are sparse, so that their cost follows the batch and not R. unknown: row 1, of unknown entities,
    starts at zero, so that it has no effect until it is trained.
    """

    def __init__(self, rows: int, width: int, *, sparse: bool = False, unknown: bool = False) -> None:
        super().__init__(rows, width, padding_idx=0, sparse=sparse)
        if unknown:
            with torch.no_grad():
                self.weight[1] = 0

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=TABLE_SPREAD)
        with torch.no_grad():
            self.weight[0] = 0

    def look_up(self, rows: Tensor) -> Tensor:
        """rows [M] -> [M, W]; like calling the table, and faster on a CPU where gradients are dense."""
        if self.sparse or self.ranks is not None:
            vectors: Tensor = self(rows)
            return vectors
        return gather_rows(self.weight, rows.long(), padding=0)

    def of_distinct(self, rows: Tensor) -> Tensor:
        """rows [K] int64, ascending, each once -> [K, W]."""
        if self.ranks is not None:
            return super().of_distinct(rows)
        return distinct_rows(self.weight, rows, sparse=self.sparse, padding=0)


class FeaturePart(nn.Module):
    """One feature of an item or a user: entities [M] -> [M, output_width]."""

    output_width: int

    def project(self, entities: Tensor, weight: Tensor) -> Tensor:
        """linear(self(entities), weight) -> [M, D], weight [D, output_width]; a subclass may compute it faster."""
        return functional.linear(self(entities), weight)


class IdentityPart(FeaturePart):
    """The rows of entities in id tables: those without a training event share row 1, `unknown`; the others have one
    each from row 2 on.

    dropout: share of entities that get the unknown row in training, so that it is trained; losses train it too where
    such items are negatives. padded: entity 0 is padding, and has row 0.
    """

    row_of: Tensor

    def __init__(self, trained: np.ndarray, *, dropout: float = 0.0, padded: bool = True) -> None:
        super().__init__()
        self.dropout = dropout
        row_of = np.where(trained, np.cumsum(trained) + 1, 1).astype(np.int32)
        if padded:
            row_of[0] = 0
        self.num_rows = int(row_of.max(initial=1)) + 1
        on_device(self, "row_of", row_of)

    def rows(self, entities: Tensor) -> Tensor:
        """entities [M] -> [M] int32."""
        rows = self.row_of[entities]
        if self.training and self.dropout:
            hidden = torch.rand(rows.shape, device=rows.device) < self.dropout
            rows = torch.where(hidden, rows.clamp(max=1), rows)
        return rows


class IdEmbedding(IdentityPart):
    """The id of an item or a user as a field: one row of a table each."""

    def __init__(
        self, trained: np.ndarray, *, width: int, dropout: float = 0.0, sparse: bool = False, padded: bool = True
    ) -> None:
        super().__init__(trained, dropout=dropout, padded=padded)
        self.output_width = width
        self.table = EmbeddingTable(self.num_rows, width, sparse=sparse, unknown=True)

    def forward(self, entities: Tensor) -> Tensor:
        return self.table.look_up(self.rows(entities))


class ContentEmbedding(FeaturePart):
    """One content embedding: items [M] -> [M, d], a learned vector where the item has none."""

    values: Tensor
    present: Tensor

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        on_device(self, "values", embedding.values)
        on_device(self, "present", embedding.present)
        self.output_width = embedding.values.shape[1]
        self.missing = nn.Parameter(torch.empty(self.output_width).normal_(std=TABLE_SPREAD))

    def forward(self, items: Tensor) -> Tensor:
        values = self.values.index_select(0, items).to(self.missing.dtype)
        return torch.where(self.present[items].unsqueeze(-1), values, self.missing)


class FusedFields(FeaturePart):
    """Categorical fields of items or users: entities [M] -> [M, F * W].

    table: the codes, [rows, C]; fields: which of its fields.
    trained: [rows] bool, the entities that training has seen; a value that none of them has is unknown.
    pooling: how the values of a multi-value field become one vector, padding left out.
    dropout: share of values replaced by their field's unknown one in training, so that the unknown rows are trained.
    """

    codes: Tensor
    columns: Tensor
    offsets: Tensor
    row_of: Tensor
    unknown: Tensor
    field_of: Tensor
    first_rows: Tensor

    def __init__(
        self,
        table: FeatureTable,
        fields: Sequence[Field],
        trained: np.ndarray,
        *,
        width: int,
        pooling: Literal["mean", "sum"] = "mean",
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.num_fields, self.width, self.pooling, self.dropout = len(fields), width, pooling, dropout
        self.output_width = len(fields) * width
        self.single = all(field.width == 1 for field in fields)
        columns = [column for field in fields for column in range(field.start, field.start + field.width)]
        self.whole = columns == list(range(table.values.shape[1]))
        starts, row_of = _rows_of_values(table, fields, trained)
        field_of = np.repeat(np.arange(len(fields)), [field.width for field in fields])
        on_device(self, "codes", table.values)
        on_device(self, "columns", np.array(columns, np.int64))
        on_device(self, "offsets", starts[field_of])
        on_device(self, "row_of", row_of)
        on_device(self, "unknown", row_of[starts[field_of] + UNKNOWN])
        on_device(self, "field_of", field_of)
        on_device(self, "first_rows", row_of[starts + MISSING].astype(np.int64))  # a field's rows start with this one
        self.table = EmbeddingTable(int(row_of.max()) + 1, width, sparse=sparse)
        with torch.no_grad():  # an unknown value has no effect until its row is trained
            self.table.weight[torch.from_numpy(row_of[starts + UNKNOWN]).long()] = 0

    def read(self, entities: Tensor) -> Tensor:
        """entities [M] -> their codes, every column of the table."""
        return self.codes.index_select(0, entities)

    def rows(self, entities: Tensor) -> Tensor:
        """entities [M] -> rows of the fused table [M, C] int64; 0 where a column is padding."""
        codes = self.read(entities)
        if not self.whole:
            codes = codes[:, self.columns]
        rows = self.row_of[codes + self.offsets]
        if self.training and self.dropout:
            hidden = (torch.rand(rows.shape, device=rows.device) < self.dropout) & (codes >= FIRST_VALUE)
            rows = torch.where(hidden, self.unknown, rows)
        return rows.long()

    def forward(self, entities: Tensor) -> Tensor:
        rows = self.rows(entities)
        vectors: Tensor = self.table(rows)
        if self.single:
            return vectors.flatten(1)
        shares = self._shares(rows, vectors.dtype)
        if shares is not None:
            vectors = vectors * shares.unsqueeze(-1)
        pooled = vectors.new_zeros(len(rows), self.num_fields, self.width)
        return pooled.index_add(1, self.field_of, vectors).flatten(1)

    def project(self, entities: Tensor, weight: Tensor) -> Tensor:
        """linear(self(entities), weight) -> [M, D], weight [D, F * W].

        On a CPU each distinct row is multiplied once, by its field's columns of the weight, and the products of an
        entity's values are summed: a batch has far fewer distinct rows than M F, and no [M, F * W] tensor is made.
        """
        if weight.is_cuda:
            return super().project(entities, weight)
        rows = self.rows(entities)
        used, where = distinct(rows, self.table.num_embeddings)
        vectors = self.table.of_distinct(used)
        bounds = [*torch.searchsorted(used, self.first_rows).tolist(), len(used)]
        padding, *by_field = torch.split(
            vectors, [bounds[0], *(stop - start for start, stop in itertools.pairwise(bounds))]
        )
        projected = [padding.new_zeros(len(padding), len(weight))]
        for some, piece in zip(by_field, torch.split(weight, self.width, dim=1), strict=True):
            projected.append(functional.linear(some, piece))
        return sum_rows(torch.cat(projected), where, self._shares(rows, vectors.dtype))

    def _shares(self, rows: Tensor, dtype: torch.dtype) -> Tensor | None:
        """[M, C], each value's weight in its field's mean; None where all weights are 1."""
        if self.single or self.pooling == "sum":
            return None
        filled = (rows > 0).to(dtype)
        count = filled.new_zeros(len(rows), self.num_fields).index_add_(1, self.field_of, filled)
        return filled / count.clamp(min=1)[:, self.field_of]


def _rows_of_values(table: FeatureTable, fields: Sequence[Field], trained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each field's codes start, [F], and the fused table's row of every code, [sum of sizes] int32."""
    sizes = np.array([field.size for field in fields], np.int64)
    starts = np.cumsum(sizes) - sizes
    seen = np.zeros(int(sizes.sum()), bool)
    for first in range(0, len(trained), ENTITIES_AT_ONCE):
        some = slice(first, first + ENTITIES_AT_ONCE)
        values = table.values[some][trained[some]]
        for field, start in zip(fields, starts, strict=True):
            seen[start + values[:, field.start : field.start + field.width].ravel()] = True
    seen[starts + PADDING] = False
    seen[starts + MISSING] = seen[starts + UNKNOWN] = True
    row_of = np.where(seen, np.cumsum(seen), 0).astype(np.int32)
    for start, size in zip(starts, sizes, strict=True):
        values = row_of[start + FIRST_VALUE : start + size]
        values[values == 0] = row_of[start + UNKNOWN]
    return starts, row_of
