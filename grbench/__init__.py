"""grbench: a plug-in benchmark harness for generative recommendation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grbench.hookspecs import hookimpl
    from grbench.registry.option_types import DataFile, DataFolder
    from grbench.report.frame import load_results

__all__ = ["DataFile", "DataFolder", "__version__", "hookimpl", "load_results"]
__version__ = "0.1.0"

_MODULES = {
    "DataFile": "grbench.registry.option_types",
    "DataFolder": "grbench.registry.option_types",
    "hookimpl": "grbench.hookspecs",
    "load_results": "grbench.report.frame",
}
"""{public name: its module}. The modules are imported when a name is first used, because `python -m grbench` runs this
file before __main__.py, which must remove the caller's folder from the path before anything else is imported."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
