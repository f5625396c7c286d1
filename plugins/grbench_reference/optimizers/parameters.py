"""A module's parameters by what they are, and the optimizers that several factories build for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.sparse import Embedding, EmbeddingBag

from grbench_reference.optimizers.rowwise_adagrad import RowwiseAdagrad

Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Tables = Literal["adam", "rowwise_adagrad"]


@dataclass(frozen=True)
class Parameters:
    """Every parameter that learns is in one of these.

    sparse_tables, tables: of Embedding and EmbeddingBag, by their gradients; maps: the weights of Linear; matrices: any
    other of two or more dimensions, such as embeddings that are no module and stacks of experts; vectors: the rest.
    """

    sparse_tables: list[nn.Parameter] = field(default_factory=list)
    tables: list[nn.Parameter] = field(default_factory=list)
    maps: list[nn.Parameter] = field(default_factory=list)
    matrices: list[nn.Parameter] = field(default_factory=list)
    vectors: list[nn.Parameter] = field(default_factory=list)

    @classmethod
    def of(cls, module: nn.Module) -> Parameters:
        """In the module's order; a table that is tied to a linear map is a table."""
        bags = [child for child in module.modules() if isinstance(child, Embedding | EmbeddingBag)]
        sparse = {child.weight for child in bags if child.sparse}
        tables = {child.weight for child in bags} - sparse
        maps = {child.weight for child in module.modules() if isinstance(child, nn.Linear)}
        sorted_out = cls()
        for parameter in module.parameters():
            if not parameter.requires_grad:
                continue
            if parameter in sparse:
                sorted_out.sparse_tables.append(parameter)
            elif parameter in tables:
                sorted_out.tables.append(parameter)
            elif parameter in maps:
                sorted_out.maps.append(parameter)
            else:
                (sorted_out.matrices if parameter.ndim >= 2 else sorted_out.vectors).append(parameter)
        return sorted_out


def adam_family(
    kind: type[torch.optim.Adam],
    groups: list[dict[str, Any]],
    parameters: Parameters,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    tables: Tables,
    table_lr: float | None,
    table_weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """One fused dense optimizer for `groups`, and for the tables what `tables` says. kind: torch's Adam or AdamW."""
    optimizers: list[torch.optim.Optimizer] = []
    table_rate = lr if table_lr is None else table_lr
    sparse: list[torch.optim.Optimizer] = []
    if tables == "rowwise_adagrad":
        if every := parameters.tables + parameters.sparse_tables:
            sparse.append(RowwiseAdagrad(every, lr=table_rate))
    else:
        decayed = {"weight_decay": table_weight_decay} if kind is torch.optim.AdamW else {}
        groups = [*groups, {"params": parameters.tables, "lr": table_rate, **decayed}]
        if parameters.sparse_tables:
            # Rows that a batch does not touch keep their moments: Adam on the rows' own clock.
            sparse.append(torch.optim.SparseAdam(parameters.sparse_tables, lr=table_rate, betas=betas, eps=eps))
    groups = [group for group in groups if group["params"]]
    if groups:
        optimizers.append(kind(groups, lr=lr, betas=betas, eps=eps, fused=True))
    return optimizers + sparse
