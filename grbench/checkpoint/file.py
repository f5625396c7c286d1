"""A safetensors file of nested values and tensors: what is no tensor is JSON in the file's metadata.

Reading runs nothing of the file's: it holds numbers and text. It is checked as a whole, by a checksum over the text and
all tensors, before any of it is used.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, TensorSpec, safe_open, serialize_file
from torch import Tensor

from grbench.checkpoint.values import put_together, taken_apart
from grbench.errors import RunError, first_line
from grbench.temporary import replacing

VERSION = 1
"""Of the file's layout. A file of another version is not read."""


class DamagedFileError(RunError):
    """The file is missing, cut off, altered, of another kind, or of another version."""


def write_file(path: Path, kind: str, about: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Writes the file in one go: until all of it is on the disk, what `path` held stays.

    kind: of the file, such as checkpoint; about: JSON-ready facts, which `read_about` reads without the content;
    content: plain values and tensors, which must not change meanwhile. Raises RunError, naming the file, where it
    cannot be written or the content holds what it cannot keep.
    """
    try:
        plain, tensors = taken_apart(content)
    except TypeError as error:
        raise RunError(f"{path}: {error}") from error
    text = json.dumps({"kind": kind, "version": VERSION, "about": about, "content": plain}, allow_nan=False)
    metadata = {"grbench": text, "crc32": _checksum(text, tensors)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.open("xb").close()  # never through a link that somebody put there
            # Not safetensors.torch.save_file, which refuses tensors that lie in one another's memory.
            serialize_file({name: _spec(tensor) for name, tensor in tensors.items()}, partial, metadata)
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path}: cannot be written ({first_line(error)})") from error


def read_file(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(about, content) of a file of this kind. The tensors are on the host, in memory of their own.

    Raises DamagedFileError, in one line that names the file, where it is not one that `write_file` has written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        said = _said(metadata, kind)
        if metadata["crc32"] != _checksum(metadata["grbench"], tensors):
            raise ValueError("its checksum differs")
        return said["about"], put_together(said["content"], tensors.__getitem__)
    except _DAMAGE as error:
        raise DamagedFileError(f"{path}: {_what(error)}") from error


def read_about(path: Path, kind: str) -> dict[str, Any]:
    """The facts of `write_file`, without reading the tensors; raises DamagedFileError as `read_file` does."""
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = _said(file.metadata() or {}, kind)["about"]
            return about
    except _DAMAGE as error:
        raise DamagedFileError(f"{path}: {_what(error)}") from error


_DAMAGE = (
    OSError,
    SafetensorError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    RuntimeError,
    RecursionError,
    MemoryError,
    OverflowError,
)
"""What reading a file that is not as it was written can raise."""


def _what(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"{first_line(error)} is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)


def _said(metadata: Mapping[str, str], kind: str) -> dict[str, Any]:
    said = json.loads(metadata["grbench"])
    if said["version"] != VERSION:
        raise ValueError(f"it is of version {int(said['version'])}, and this grbench reads {VERSION}")
    if said["kind"] != kind or not isinstance(said["about"], dict) or not isinstance(said["content"], dict):
        raise ValueError(f"it is no {kind}")
    return dict(said)


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """8 hex digits over the text, and the names, types, shapes and bytes of the tensors."""
    value = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), value)
        value = zlib.crc32(_bytes(tensor).data, value)
    return f"{value:08x}"


def _bytes(tensor: Tensor) -> np.ndarray:
    """The bytes of a contiguous tensor on the host, not copied."""
    flat = tensor.reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.zeros(0, np.uint8)


_NOTHING = np.zeros(1, np.uint8)
"""An address for tensors without numbers."""


def _spec(tensor: Tensor) -> TensorSpec:
    kind = str(tensor.dtype).removeprefix("torch.")
    address = tensor.data_ptr() or _NOTHING.ctypes.data
    return TensorSpec(dtype=kind, shape=tensor.shape, data_ptr=address, data_len=tensor.nbytes)
