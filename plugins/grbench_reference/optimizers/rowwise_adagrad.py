"""Row-wise Adagrad: how the embedding tables of large recommenders are trained, with one number of state a row.

As FBGEMM's EXACT_ROWWISE_ADAGRAD, the default of TorchRec's tables and of DLRM (arXiv 1906.00091); torch has none.

Shapes: R rows of a table, W width, K rows that a batch has touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from grbench_reference.optimizers.row_updates import RowUpdates


class RowwiseAdagrad(RowUpdates):
    """h_r += mean of the squares of row r's gradient;  row r -= lr * its gradient / (sqrt(h_r) + eps).

    State is [R], where Adam's is 2 [R, W]. Gradients may be sparse: then a step costs what a batch touches. A row
    without gradient stays as it is, so that both kinds of gradients give the same table.

    eps: FBGEMM's default. Raises ValueError for a parameter that is no table.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float = 1e-2, eps: float = 1e-8) -> None:
        super().__init__(parameters, {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for table in group["params"]:
                if table.ndim != 2:
                    raise ValueError(f"row-wise Adagrad updates tables [R, W], not a parameter of shape {table.shape}")

    def update(self, table: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """See RowUpdates."""
        if not state:
            state["sum"] = torch.zeros(len(table), device=table.device)
        sums: Tensor = state["sum"]
        if not gradient.is_sparse:
            sums += _mean_square(gradient)
            table.addcmul_(gradient, sums.sqrt().add_(group["eps"]).reciprocal_().unsqueeze(1), value=-group["lr"])
            return
        gradient = gradient.coalesce()  # a row that was asked for twice is one row, with both gradients added up
        rows, values = gradient.indices()[0], gradient.values()
        sums.index_add_(0, rows, _mean_square(values))
        table.index_add_(
            0, rows, values * sums[rows].sqrt_().add_(group["eps"]).reciprocal_().unsqueeze(1), alpha=-group["lr"]
        )


def _mean_square(rows: Tensor) -> Tensor:
    """[K, W] -> [K], without a second [K, W]."""
    squares: Tensor = torch.linalg.vector_norm(rows, dim=1).square_()
    return squares / rows.shape[1]
