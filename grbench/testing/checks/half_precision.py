"""Half precision on a CPU, with what only a GPU refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from grbench.testing.checks.check import require


class _AsOnGpu(TorchFunctionMode):
    """Refuses what a GPU refuses and a CPU mends by itself under autocast: writing rows of one type into another."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name.startswith(("index_copy", "index_add", "scatter")):
            kinds = {each.dtype for each in args if isinstance(each, torch.Tensor) and each.is_floating_point()}
            require(len(kinds) <= 1, f"{name} of {' and '.join(sorted(map(str, kinds)))}, which a GPU refuses")
        return func(*args, **(kwargs or {}))


@contextmanager
def half_precision() -> Iterator[None]:
    """Autocast to bfloat16."""
    with torch.autocast("cpu", torch.bfloat16), _AsOnGpu():
        yield
