"""The package faiss, or what to install where it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from grbench.errors import PluginError

try:
    faiss: Any = import_module("faiss")  # its type stubs leave half of it out
except ImportError as error:
    raise PluginError(
        f"the faiss retriever needs the package faiss ({error}): install the extra `cpu` of grbench, "
        "or its extra `gpu` where there is a CUDA device (never both: they clash)"
    ) from error
