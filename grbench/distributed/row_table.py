"""Embedding tables whose rows are divided among ranks: row r lies on rank r mod R, as its row r div R.

DTensor and FSDP2 do not fit here: a DTensor's look-up gathers every rank's indices on all and adds up vectors of all of
them, R times what is asked for, and has no sparse gradients; FSDP2 brings the whole table together for each use.
So a rank asks each owner for the distinct rows that it needs, and gives it their gradients back.

Shapes: R ranks, K rows asked for, N rows of the table, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from grbench.distributed.ranks import Ranks

# mypy: disable-error-code="no-untyped-call"


class RowTable(nn.Embedding):
    """An embedding table [N, W] that can be divided. Its rows are looked up by calling it, or by `of_distinct`, never
    in its weight, which holds this rank's rows alone once it is divided.

    divisible: false for a table that is read in its weight all the same; ranks: that it is divided among, None = not.
    """

    divisible = True
    ranks: Ranks | None = None
    weight: nn.Parameter

    def divide(self, ranks: Ranks) -> None:
        """Keeps this rank's rows alone. Called before the table is on a GPU, by every rank."""
        self.ranks = ranks
        self.weight = nn.Parameter(ranks.own_rows(self.weight.detach()), requires_grad=self.weight.requires_grad)

    def forward(self, input: Tensor) -> Tensor:
        """input [...] int -> [..., W]."""
        if self.ranks is None:
            return super().forward(input)
        used, where = torch.unique(input.reshape(-1).long(), return_inverse=True)
        return functional.embedding(where.view(input.shape), self.of_distinct(used))

    def of_distinct(self, rows: Tensor) -> Tensor:
        """rows [K] int64, each once -> [K, W]."""
        if self.ranks is None:
            return super().forward(rows)
        vectors: Tensor = _LookUp.apply(self.weight, rows, self.sparse, self.padding_idx, self.ranks)
        return vectors


class _LookUp(Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by place
        ctx: Any, own: Tensor, rows: Tensor, sparse: bool, padding: int | None, ranks: Ranks
    ) -> Tensor:
        owner = rows % ranks.size
        order = owner.argsort(stable=True)
        sent = torch.bincount(owner, minlength=ranks.size).cpu()
        received = ranks.counts_for_me(sent)
        ctx.ranks, ctx.sent, ctx.received = ranks, sent.tolist(), received.tolist()
        asked = ranks.exchanged(rows[order] // ranks.size, ctx.sent, ctx.received)
        ctx.save_for_backward(order, asked)
        ctx.shape, ctx.sparse = own.shape, sparse
        ctx.padding = padding // ranks.size if padding is not None and padding % ranks.size == ranks.rank else None
        found = ranks.exchanged(own.index_select(0, asked), ctx.received, ctx.sent)
        return torch.empty_like(found).index_copy_(0, order, found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        order, asked = ctx.saved_tensors
        # Of replicated parameters the ranks' gradients are averaged: these are too.
        values = ctx.ranks.exchanged(gradient[order], ctx.sent, ctx.received) / ctx.ranks.size
        if ctx.padding is not None:
            values = values * (asked != ctx.padding).to(values.dtype).unsqueeze(1)
        if ctx.sparse:
            own = torch.sparse_coo_tensor(asked[None], values, ctx.shape, check_invariants=False)
        else:
            own = values.new_zeros(ctx.shape).index_add_(0, asked, values)
        return own, None, None, None, None


def divide_tables(module: nn.Module, at_least: int | None, ranks: Ranks) -> None:
    """Divides the module's tables of at least so many rows; None = none of them, as in a process that is alone."""
    if at_least is None or ranks.alone:
        return
    for table in module.modules():
        if isinstance(table, RowTable) and table.divisible and table.num_embeddings >= at_least:
            table.divide(ranks)


def divided_tables(module: nn.Module) -> dict[str, RowTable]:
    """The divided tables by the names of their weights."""
    tables = [(name, each) for name, each in module.named_modules() if isinstance(each, RowTable)]
    return {f"{name}.weight".lstrip("."): table for name, table in tables if table.ranks is not None}


def divided_weights(module: nn.Module) -> Sequence[nn.Parameter]:
    """Their weights."""
    return [table.weight for table in divided_tables(module).values()]
