"""Digests of what crosses the interfaces of plug-ins: arrays, batches, codes, training data, modules."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grbench.data.histories import Histories
from grbench.data.training_data import TrainingData

NOT_HASHED = frozenset({"report"})
"""Fields that say how something was made, such as the seconds that codes took."""


def digest_of(*values: object) -> str:
    """16 hex digits of the values' content: equal for values that no plug-in could tell apart."""
    hasher = hashlib.blake2b(digest_size=8)
    for value in values:
        _feed(hasher, value)
    return hasher.hexdigest()


def _feed(hasher: Any, value: object) -> None:
    if isinstance(value, Tensor):
        _feed_tensor(hasher, value)
    elif isinstance(value, np.ndarray):
        hasher.update(f"{value.dtype} {value.shape}".encode())
        plain = value.dtype.kind in "biufc"
        hasher.update(np.ascontiguousarray(value).data if plain else repr(value.tolist()).encode())
    elif isinstance(value, nn.Module):
        _feed(hasher, {**dict(value.named_parameters()), **dict(value.named_buffers())})
    elif isinstance(value, Histories):
        _feed(hasher, [value.users, value.lengths, *value.stream()])
    elif isinstance(value, TrainingData):
        events = [*value.stream()]
        _feed(hasher, [value.users, value.lengths, *events, value.target_actions, value.no_target_after])
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.name not in NOT_HASHED]
        _feed(hasher, {name: getattr(value, name) for name in fields})
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            hasher.update(repr(key).encode())
            _feed(hasher, entry)
    elif isinstance(value, list | tuple):
        hasher.update(f"list of {len(value)}".encode())
        for entry in value:
            _feed(hasher, entry)
    else:
        simple = value is None or isinstance(value, str | int | float | bool | bytes)
        hasher.update(repr(value if simple else type(value).__qualname__).encode())


def _feed_tensor(hasher: Any, tensor: Tensor) -> None:
    whole = tensor.detach().cpu()
    if whole.is_sparse:
        whole = whole.to_dense()
    hasher.update(f"{whole.dtype} {tuple(whole.shape)}".encode())
    hasher.update(whole.contiguous().reshape(-1).view(torch.uint8).numpy().data)
