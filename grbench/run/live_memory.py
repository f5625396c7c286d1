"""What a piece of torch code holds in memory at its worst, by tensors alive; and modules built without filling them.

Tensors are counted from the operation that makes them until the last one that shares their storage is gone, on any
device. What a kernel takes for itself while it runs, and gives back, is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LARGE = 1 << 20
"""Numbers from which on a tensor's random values are not drawn: its memory then stays untouched."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every storage made and freed inside. What was there before is not counted.

    limit: MemoryError is raised once more bytes than these are alive; None = never.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit, self.live, self._name = limit, 0, ""
        self._changes: list[tuple[int, int, str]] = []  # (which storage, bytes more or fewer, under what name)
        self._alive: dict[int, int] = {}  # a storage's address -> which it is
        self._made = 0

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """What is made inside counts under this name; the innermost counts."""
        before, self._name = self._name, name
        try:
            yield
        finally:
            self._name = before

    def peak(self, without: Iterable[Tensor] = ()) -> dict[str, int]:
        """{name: bytes} at the moment when most bytes were alive, tensors `without` not counted at any time."""
        left_out = {self._alive.get(storage._cdata) for tensor in without for storage in _storages(tensor)}
        live: dict[str, int] = {}
        total, largest, worst = 0, 0, {}
        for which, change, name in self._changes:
            if which in left_out:
                continue
            live[name] = live.get(name, 0) + change
            total += change
            if total > largest:
                largest, worst = total, dict(live)
        return worst

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given: set[int] | None = None
        for tensor in tree_leaves(result):
            if not isinstance(tensor, Tensor):
                continue
            for storage in _storages(tensor):
                if storage._cdata in self._alive:
                    continue
                if given is None:
                    leaves = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
                    given = {each._cdata for leaf in leaves for each in _storages(leaf)}
                if storage._cdata not in given:
                    self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        which, size, name = self._made, storage.nbytes(), self._name
        self._made += 1
        self._alive[storage._cdata] = which
        self._changes.append((which, size, name))
        self.live += size
        weakref.finalize(storage, self._free, storage._cdata, which, size, name)
        if self.limit is not None and self.live > self.limit:
            raise MemoryError(f"more than {self.limit} bytes are alive")

    def _free(self, address: int, which: int, size: int, name: str) -> None:
        del self._alive[address]
        self._changes.append((which, -size, name))
        self.live -= size


def _storages(tensor: Tensor) -> list[torch.UntypedStorage]:
    if tensor.layout != torch.strided:
        if tensor.layout != torch.sparse_coo:
            return []
        return [tensor._indices().untyped_storage(), tensor._values().untyped_storage()]
    return [tensor.untyped_storage()]


class Unfilled(TorchFunctionMode):
    """Inside, large tensors are not filled with random numbers: a module has its shapes, and no memory is touched.

    Its values are whatever the memory holds, which is zeros where the system has just handed it over.
    """

    _IN_PLACE = (
        Tensor.normal_,
        Tensor.uniform_,
        Tensor.exponential_,
        Tensor.log_normal_,
        Tensor.cauchy_,
        Tensor.bernoulli_,
        Tensor.erfinv_,
    )
    _FACTORIES = (torch.randn, torch.rand)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # An initialiser of torch's hands its tensor over before it does anything, and back when it is done.
        if func in self._IN_PLACE or getattr(func, "__module__", None) == torch.nn.init.__name__:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.numel() >= LARGE:
                return tensor
        if func in self._FACTORIES:
            kwargs = {key: value for key, value in kwargs.items() if key != "generator"}
            return torch.empty(*args, **kwargs)
        return func(*args, **kwargs)
