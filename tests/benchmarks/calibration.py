"""The reference computations that benchmarks are timed against, turn about: another machine's speed cancels out.

Machines differ in more than one speed, so there is one of each kind of work, of about 10 ms, and a benchmark alternates
with those of the kinds that it consists of. Change one, and every ratio to it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np
import torch

Kind = Literal["compute", "memory", "sort", "python"]

DESCRIPTIONS: dict[Kind, str] = {
    "compute": "1024 x 512 by 512 x 1024 matrices multiplied, float32",
    "memory": "50,000 random rows gathered from 1,000,000 x 32 float32, and 16 MiB copied",
    "sort": "800,000 random int64 sorted",
    "python": "a dictionary of 50,000 numbers filled and read in a loop",
}


class Kernels:
    """The computations by kind; `together` is a call of several."""

    def together(self, kinds: tuple[Kind, ...]) -> Callable[[], None]:
        """Does each kind's computation once; what they work on is made here, not in the call."""
        for kind in kinds:
            getattr(self, f"_{kind}_data")
        works = [getattr(self, kind) for kind in kinds]

        def work() -> None:
            for each in works:
                each()

        return work

    def compute(self) -> None:
        left, right = self._compute_data
        torch.mm(left, right)

    def memory(self) -> None:
        table, rows, block = self._memory_data
        table.index_select(0, rows)
        block.clone()

    def sort(self) -> None:
        np.sort(self._sort_data)

    def python(self) -> None:
        squares = {}
        for number in range(self._python_data):
            squares[number] = number * number
        total = 0
        for number in range(self._python_data):
            total += squares[number]

    @cached_property
    def _compute_data(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1024, 512, generator=generator), torch.randn(512, 1024, generator=generator)

    @cached_property
    def _memory_data(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        table = torch.randn(1_000_000, 32, generator=generator)
        return table, torch.randint(len(table), (50_000,), generator=generator), torch.zeros(1 << 22)

    @cached_property
    def _sort_data(self) -> np.ndarray:
        return np.random.default_rng(0).integers(1 << 62, size=800_000)

    @cached_property
    def _python_data(self) -> int:
        return 50_000
