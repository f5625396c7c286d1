"""The semantic IDs that retrieval uses, checked: those of the tokenizer, or of an encoder that learns its own.

Shapes: N items, L code levels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from grbench.errors import RunError
from grbench.interfaces import Encoder, optional
from grbench.types import Codes


def current_codes(encoder: Any, fitted: Codes, num_items: int) -> Codes:
    """The codes that the encoder's `codes()` returns, checked and on the CPU; `fitted`, the tokenizer's codes, where it
    returns None. Raises RunError as `checked_codes` does."""
    learnt = optional(encoder, Encoder.codes)()
    return fitted if learnt is None else checked_codes(learnt, num_items, f"encoder {type(encoder).__name__}")


def checked_codes(codes: Codes, num_items: int, whose: str) -> Codes:
    """The codes with their table on the CPU. whose: the plug-in, for messages. Raises RunError where the table is not
    [N+1, L] int64 with row 0 = 0, or a code is outside its level's size, naming item row and level."""
    table = codes.table
    levels, expected = len(codes.sizes), (num_items + 1, len(codes.sizes))
    if table.dtype != torch.int64 or tuple(table.shape) != expected:
        kind = str(table.dtype).removeprefix("torch.")
        raise RunError(
            f"{whose}: its table of codes has shape {tuple(table.shape)}, {kind}; it should have shape {expected}, "
            f"int64: row 0 for padding, then one row per item, and a column for each of the {levels} sizes"
        )
    sizes = torch.tensor(codes.sizes, device=table.device)
    wrong = (table < 0) | (table >= sizes)
    wrong[0] |= table[0] != 0
    if wrong.any():
        item, level = (int(index) for index in wrong.nonzero()[0])
        code = int(table[item, level])
        if item == 0:
            raise RunError(f"{whose}: row 0 of its codes is padding and should be 0 at level {level}, not {code}")
        raise RunError(
            f"{whose}: the code of item row {item} at level {level} is {code}; with {int(sizes[level])} codes at that "
            f"level it should be from 0 to {int(sizes[level]) - 1}"
        )
    return replace(codes, table=table.cpu())
