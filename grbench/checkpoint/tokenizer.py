"""A fitted tokenizer in a checkpoint: its codes, and where the random generators stood when it had been fitted, so that
what is built after it is built from the same random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from grbench.checkpoint.generators import generator_states, restore_generators
from grbench.types import Codes


def saved_tokenizer(codes: Codes, device: torch.device) -> dict[str, Any]:
    """Plain values and tensors. To be called when the tokenizer has just been fitted."""
    return {**codes_to_save(codes), "report": dict(codes.report), "generators": generator_states(device)}


def load_tokenizer(saved: Mapping[str, Any], device: torch.device) -> Codes:
    """The codes that were saved; sets the generators."""
    restore_generators(saved["generators"], device)
    return codes_that_were_saved(saved)


def codes_to_save(codes: Codes) -> dict[str, Any]:
    """The codes without their report, as plain values and tensors."""
    return {"table": codes.table, "sizes": list(codes.sizes), "tensors": dict(codes.tensors)}


def codes_that_were_saved(saved: Mapping[str, Any]) -> Codes:
    """What `codes_to_save` gave, with the report where there is one."""
    # An older grbench saved no tensors.
    tensors = dict(saved.get("tensors", {}))
    return Codes(saved["table"], tuple(saved["sizes"]), dict(saved.get("report", {})), tensors)
