"""One update of every table with a gradient: what the optimizers that update tables by rows share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer


class RowUpdates(Optimizer):
    """An optimizer that says how one table [R, W] is updated."""

    @abstractmethod
    def update(self, table: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Updates `table` and its `state`, which is empty at first. group: the table's settings."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every table that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for table in group["params"]:
                    if table.grad is not None:
                        self.update(table, table.grad, self.state[table], group)
        return loss
