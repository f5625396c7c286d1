"""The package faiss, or what to install where it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from grbench.errors import PluginError


def load_faiss(what: str) -> Any:
    """The module, untyped because its stubs leave half of it out; raises PluginError saying that `what` needs it."""
    try:
        return import_module("faiss")
    except ImportError as error:
        raise PluginError(
            f"{what} needs the package faiss ({error}): pip install 'grbench[cpu]', or 'grbench[gpu]' where there is a "
            "CUDA device (never both: they clash)"
        ) from error
