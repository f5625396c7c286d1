"""The states of the random generators that a training may draw from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def generator_states(device: torch.device) -> dict[str, Any]:
    """Of Python's, numpy's and torch's generators, and the GPU's where `device` is one: plain values and tensors."""
    version, words, normal = random.getstate()
    name, keys, place, has_normal, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - plug-ins may use it
    states: dict[str, Any] = {
        "python": [version, list(words), normal],
        "numpy": [str(name), [int(key) for key in keys], int(place), int(has_normal), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(states: Mapping[str, Any], device: torch.device) -> None:
    """Sets the generators to what `generator_states` gave."""
    version, words, normal = states["python"]
    random.setstate((version, tuple(words), normal))
    name, keys, place, has_normal, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), place, has_normal, cached))  # noqa: NPY002 - as above
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
