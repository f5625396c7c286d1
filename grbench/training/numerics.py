"""Settings of the process that the numbers of a training depend on: seeds, and how the CPU handles denormal numbers."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seeds every generator that a plug-in may draw from without asking: Python's, numpy's and torch's."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - plug-ins may still use the old interface
    torch.manual_seed(seed)


def flush_denormals() -> None:
    """Lets the CPU treat denormal numbers as zero, in this thread and in all threads that it starts afterwards.

    Moments of rows that are seldom met decay to denormal numbers, which a CPU handles a hundred times slower.
    """
    torch.set_flush_denormal(True)
