"""Divided tables brought together for a file, and taken apart again, among as many ranks as there are then.

Every rank calls what brings together; the first one gets the whole, on the host, the others what they had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from grbench.distributed.ranks import Ranks
from grbench.distributed.row_table import RowTable, divided_tables

TablePart = Callable[[RowTable, Any], Any]
"""What becomes of a table's own rows, its state in an optimizer or its gradient."""


def together(table: RowTable, rows: Any) -> Any:
    """This rank's rows -> all of them; what is no tensor of the table's rows stays."""
    ranks = table.ranks
    if ranks is None or not _is_of_rows(rows, len(table.weight)):
        return rows
    if rows.is_sparse:
        return _sparse_together(table, ranks, rows.coalesce())
    if not ranks.first:
        ranks.send_to_first(rows)
        return rows
    whole = torch.empty((table.num_embeddings, *rows.shape[1:]), dtype=rows.dtype)
    for rank in range(ranks.size):
        own = whole[rank :: ranks.size]
        own.copy_(rows if rank == 0 else ranks.received_by_first(own, rank))
    return whole


def apart(table: RowTable, rows: Any) -> Any:
    """All rows -> this rank's; what is no tensor of them stays."""
    ranks = table.ranks
    if ranks is None or not _is_of_rows(rows, table.num_embeddings):
        return rows
    if not rows.is_sparse:
        return ranks.own_rows(rows)
    rows = rows.coalesce()
    indices, values = rows.indices()[0], rows.values()
    own = indices % ranks.size == ranks.rank
    return torch.sparse_coo_tensor(
        (indices[own] // ranks.size)[None], values[own], table.weight.shape, check_invariants=False
    ).coalesce()


def state_of(values: Mapping[str, Any], module: nn.Module, part: TablePart, *, prefix: str = "") -> dict[str, Any]:
    """A module's values by the names of its parameters, or of those below `prefix`, with `part` of each divided table's
    weight."""
    tables = divided_tables(module)
    return {
        name: part(tables[key], each) if (key := prefix + name) in tables else each for name, each in values.items()
    }


def optimizer_state(
    saved: Mapping[str, Any], optimizer: Optimizer, module: nn.Module, part: TablePart
) -> dict[str, Any]:
    """An optimizer's `state_dict`, with `part` of all that it keeps of the rows of a divided table."""
    by_weight = {id(table.weight): table for table in divided_tables(module).values()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        number: {key: part(by_weight[id(parameters[number])], each) for key, each in kept.items()}
        if id(parameters[number]) in by_weight
        else kept
        for number, kept in saved["state"].items()
    }
    return {**saved, "state": state}


def _is_of_rows(value: Any, rows: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == rows


def _sparse_together(table: RowTable, ranks: Ranks, rows: Tensor) -> Tensor:
    every = ranks.to_first((rows.indices()[0].cpu() * ranks.size + ranks.rank, rows.values().cpu()))
    if not every:
        return rows
    indices, values = (torch.cat(columns) for columns in zip(*every, strict=True))
    shape = (table.num_embeddings, *rows.shape[1:])
    return torch.sparse_coo_tensor(indices[None], values, shape, check_invariants=False).coalesce()
