"""A device that is not there: tensors that say they are on it, and hold real numbers on the CPU.

What a GPU refuses is refused here too: an operation on tensors of two devices, and numpy on a tensor of the device. So
that a part that keeps a tensor on the CPU is found without a GPU. Numbers are those of the CPU, shapes that depend on
them included, which torch's own fake tensors do not have.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

OTHER = torch.device("cpu", 1)
"""What the tensors give as their device: one that torch takes for another than the CPU's own, and computes on."""

_FROM_BOTH = ("_to_copy", "copy_", "_local_scalar_dense")
"""Operations that take tensors from one device to the other."""
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
"""Whose indices may be on the CPU, as on a GPU."""


class DeviceError(RuntimeError):
    """An operation got tensors of two devices."""


class Elsewhere(Tensor):
    """A tensor on the other device. held: its numbers, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        """See the class."""
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=OTHER,
            requires_grad=False,
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        """Torch has none for subclasses."""
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """As torch refuses it of a tensor on a GPU."""
        if not force:
            raise DeviceError("numpy of a tensor that is not on the CPU; use .cpu() first")
        return self.held.numpy(force=True)

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


class _FromLists(TorchFunctionMode):
    """Makes tensors of Python's numbers on the other device, which torch does without an operation that names it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device) == OTHER:
            return func(*args, **{**kwargs, "device": "cpu"}).to(OTHER)
        return func(*args, **kwargs)


class OtherDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which tensors are made on, and moved to, the other device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._before = False
        self._from_lists = _FromLists()

    def __enter__(self) -> Self:
        # A parameter that is moved becomes a new one; torch would else keep it and exchange its numbers.
        self._before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        super().__enter__()  # type: ignore[no-untyped-call]
        self._from_lists.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._from_lists.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        torch.__future__.set_overwrite_module_params_on_conversion(self._before)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name.partition("::")[2]
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    there = any(isinstance(each, Elsewhere) for each in tensors)
    device = kwargs.get("device")
    if there and name not in _FROM_BOTH:
        looked_at = [args[0]] if name in _INDEXING else tensors
        here = [each for each in looked_at if not isinstance(each, Elsewhere) and each.ndim]
        if here:
            raise DeviceError(
                f"{name} of tensors on two devices: one of shape {tuple(here[0].shape)} stayed on the CPU"
            )
    goes_there = there if device is None else torch.device(device) == OTHER
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map(_held, (args, kwargs))
    done = func(*plain_args, **plain_kwargs)
    if torch.Tag.inplace_view in func.tags and isinstance(args[0], Elsewhere):  # such as transpose_ in nn.GRU
        with no_dispatch():
            func(*args, **kwargs)  # what is held has its new shape by now; this one's own shape follows
    if func._schema.is_mutable and args and done is plain_args[0]:  # an operation in place gives what it was given
        return args[0]
    return _wrapped(done, goes_there)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Elsewhere) else value


def _wrapped(done: Any, there: bool) -> Any:
    return tree_map(lambda each: Elsewhere(each) if there and isinstance(each, Tensor) else each, done)
