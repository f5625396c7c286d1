"""Nested values with tensors, taken apart into JSON and flat tensors, and put together again: equal to the last bit.

What is kept: None, booleans, whole numbers of any size, floats (those that are not finite too), text, lists, tuples,
mappings with any of these as keys, dense tensors with their strides, and sparse COO tensors. Numpy's scalars become
Python's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

TENSOR, SPARSE, TUPLE, MAPPING, FLOAT = "$tensor", "$sparse", "$tuple", "$mapping", "$float"
"""The only key of a mapping that stands for what JSON has not."""


def taken_apart(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """(what JSON can hold, the tensors that it names). Tensors that are the same memory are kept once.

    The tensors are dense, contiguous and on the host; those that are so already are not copied. Raises TypeError,
    naming the place, for a value of another type.
    """
    parts = _Parts()
    return parts.plain(value, ""), parts.tensors


def put_together(plain: Any, tensor: Callable[[str], Tensor]) -> Any:
    """The value of which `taken_apart` gave `plain`; `tensor` gives the tensor of a name.

    Raises ValueError, KeyError or TypeError where `plain` is nothing that `taken_apart` gives.
    """
    found: dict[str, Tensor] = {}

    def named(name: str) -> Tensor:
        if name not in found:
            found[name] = tensor(name)
        return found[name]

    return _whole(plain, named)


class _Parts:
    """The tensors of a value, by names made of their places."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._nodes: dict[tuple[Any, ...], dict[str, Any]] = {}

    def plain(self, value: Any, where: str) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {FLOAT: repr(float(value))}
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, Tensor):
            return self._tensor(value.detach(), where)
        if isinstance(value, list | tuple):
            entries = [self.plain(each, f"{where}/{place}") for place, each in enumerate(value)]
            return entries if isinstance(value, list) else {TUPLE: entries}
        if isinstance(value, Mapping):
            return self._mapping(value, where)
        raise TypeError(f"{_place(where)} is a {type(value).__name__}, which a checkpoint cannot hold")

    def _mapping(self, value: Mapping[Any, Any], where: str) -> dict[str, Any]:
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: self.plain(each, f"{where}/{key}") for key, each in value.items()}
        pairs = [[self.plain(key, where), self.plain(each, f"{where}/{key}")] for key, each in value.items()]
        return {MAPPING: pairs}

    def _tensor(self, tensor: Tensor, where: str) -> dict[str, Any]:
        if tensor.layout == torch.sparse_coo:
            parts = {
                "indices": self._tensor(tensor._indices(), f"{where}/indices"),
                "values": self._tensor(tensor._values(), f"{where}/values"),
                "shape": list(tensor.shape),
                "coalesced": tensor.is_coalesced(),
            }
            return {SPARSE: parts}
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise TypeError(f"{_place(where)} is a tensor of layout {tensor.layout}, which a checkpoint cannot hold")
        same = tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape, tensor.stride()
        if tensor.numel() and same in self._nodes:
            return self._nodes[same]
        name = where.strip("/") or "tensor"
        while name in self.tensors or name == "__metadata__":  # a key may hold a slash
            name += "+"
        node: dict[str, Any] = {TENSOR: name}
        # The sum of a tensor may depend on the order in which its numbers lie.
        if not tensor.is_contiguous() and _fill_memory(tensor.shape, tensor.stride()):
            node["strides"] = list(tensor.stride())
        self.tensors[name] = tensor.cpu().contiguous()
        self._nodes[same] = node
        return node


def _place(where: str) -> str:
    return where.strip("/") or "the value"


def _fill_memory(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a tensor of this shape is a transposed contiguous one: without gaps, and no number twice."""
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _whole(plain: Any, named: Callable[[str], Tensor]) -> Any:
    if isinstance(plain, list):
        return [_whole(each, named) for each in plain]
    if not isinstance(plain, dict):
        return plain
    tag = next((key for key in plain if key.startswith("$")), None)
    if tag is None:
        return {key: _whole(each, named) for key, each in plain.items()}
    if tag not in _MADE:
        raise ValueError(f"{tag} is unknown")
    return _MADE[tag](plain, named)


def _sparse(parts: Mapping[str, Any], named: Callable[[str], Tensor]) -> Tensor:
    indices, values = _whole(parts["indices"], named), _whole(parts["values"], named)
    shape, coalesced = [int(size) for size in parts["shape"]], bool(parts["coalesced"])
    return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=coalesced, check_invariants=True)


_MADE: dict[str, Callable[[dict[str, Any], Callable[[str], Tensor]], Any]] = {
    TENSOR: lambda node, named: _with_strides(named(node[TENSOR]), node.get("strides")),
    SPARSE: lambda node, named: _sparse(node[SPARSE], named),
    TUPLE: lambda node, named: tuple(_whole(each, named) for each in node[TUPLE]),
    MAPPING: lambda node, named: {_whole(key, named): _whole(each, named) for key, each in node[MAPPING]},
    FLOAT: lambda node, _: float(node[FLOAT]),
}


def _with_strides(tensor: Tensor, strides: list[int] | None) -> Tensor:
    if strides is None:
        return tensor
    if not _fill_memory(tensor.shape, strides):
        raise ValueError(f"strides {strides} do not go with the shape {list(tensor.shape)}")
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
