"""What a piece of torch code holds in memory at its worst, by tensors alive; and modules built without filling them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LARGE = 1 << 20
"""Numbers from which on a tensor's random values are not drawn: its memory then stays untouched."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every storage made inside, from the operation that makes it until its last tensor is gone, on any device.

    What was there before is not counted, nor what a kernel takes for itself while it runs.
    limit: MemoryError is raised once more bytes than these are alive.
    changes: bytes of each storage as it is made, and negative as it is freed, in order.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit, self.live = limit, 0
        self.changes: list[int] = []
        self._alive: set[int] = set()  # the addresses of storages

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages(tree_leaves((args, kwargs)))}
        for storage in _storages(tree_leaves(result)):
            if storage._cdata not in given and storage._cdata not in self._alive:
                self._alive.add(storage._cdata)
                self._change(storage.nbytes())
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        if self.live > self.limit:
            raise MemoryError(f"more than {self.limit} bytes are alive")
        return result

    def _change(self, size: int) -> None:
        self.changes.append(size)
        self.live += size

    def _free(self, address: int, size: int) -> None:
        self._alive.remove(address)
        self._change(-size)


def peak(changes: Iterable[int]) -> int:
    """The most bytes alive at one time."""
    return max(accumulate(changes), default=0)


def _storages(leaves: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    for tensor in leaves:
        if not isinstance(tensor, Tensor):
            continue
        if tensor.layout == torch.strided:
            yield tensor.untyped_storage()
        elif tensor.layout == torch.sparse_coo:
            yield from (tensor._indices().untyped_storage(), tensor._values().untyped_storage())


class Unfilled(TorchFunctionMode):
    """Inside, large tensors are not filled with random numbers: a module has its shapes, and no memory is touched.

    Its values are whatever the memory holds, which is zeros where the system has just handed it over.
    """

    _FILLS = ("normal_", "uniform_", "exponential_", "log_normal_", "cauchy_", "bernoulli_", "erfinv_")
    _IN_PLACE = tuple(getattr(Tensor, name) for name in _FILLS)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # An initialiser of torch's hands its tensor over before it does anything, and back when it is done.
        if func in self._IN_PLACE or getattr(func, "__module__", None) == torch.nn.init.__name__:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.numel() >= LARGE:
                return tensor
        if func in (torch.randn, torch.rand):
            return torch.empty(*args, **{key: value for key, value in kwargs.items() if key != "generator"})
        return func(*args, **kwargs)
