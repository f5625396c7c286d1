"""The kernel that every benchmark is timed against, turn about, so that another machine's speed cancels out.

Half of it is limited by arithmetic and half by memory, as the harness is. Change it, and every reference ratio changes.
"""

from __future__ import annotations

import torch

DESCRIPTION = (
    "1024 x 512 by 512 x 1024 matrices multiplied, and 50,000 random rows gathered from 1,000,000 x 32; float32"
)


class Kernel:
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.left = torch.randn(1024, 512, generator=generator)
        self.right = torch.randn(512, 1024, generator=generator)
        self.table = torch.randn(1_000_000, 32, generator=generator)
        self.rows = torch.randint(len(self.table), (50_000,), generator=generator)

    def __call__(self) -> None:
        torch.mm(self.left, self.right)
        self.table.index_select(0, self.rows)
