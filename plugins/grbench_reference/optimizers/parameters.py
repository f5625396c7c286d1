"""A module's parameters by what they are, and the optimizers that several factories build for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.sparse import Embedding, EmbeddingBag

from grbench_reference.optimizers.row_adam import RowAdam
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
    parameters: Parameters,
    matrices: list[nn.Parameter],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float = 0.0,
    tables: Tables,
    table_lr: float | None,
    table_weight_decay: float = 0.0,
) -> list[torch.optim.Optimizer]:
    """One fused AdamW, which without decay is Adam, for `matrices` and all vectors, which do not decay; for the tables
    what `tables` says."""
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": parameters.vectors, "weight_decay": 0.0},
    ]
    table_rate = lr if table_lr is None else table_lr
    others: list[torch.optim.Optimizer] = []
    if tables == "rowwise_adagrad":
        if every := parameters.tables + parameters.sparse_tables:
            others.append(RowwiseAdagrad(every, lr=table_rate))
    else:
        groups.append({"params": parameters.tables, "lr": table_rate, "weight_decay": table_weight_decay})
        if parameters.sparse_tables:
            others.append(RowAdam(parameters.sparse_tables, lr=table_rate, betas=betas, eps=eps))
    groups = [group for group in groups if group["params"]]
    dense = [torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)] if groups else []
    return [*dense, *others]
