"""What plug-in authors test with: the conformance kit, tiny worlds whose answers can be worked out by hand, and timings
against a reference.

The fixtures `versus` and `workbench` need no import: pytest finds them by itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grbench.testing.paired_timing import Race
    from grbench.testing.parametrize import parametrize_with_checks
    from grbench.testing.tiny_world import tiny_store
    from grbench.testing.workbench import Workbench

__all__ = ["Race", "Workbench", "parametrize_with_checks", "tiny_store"]

_PLACES = {
    "Race": "paired_timing",
    "Workbench": "workbench",
    "parametrize_with_checks": "parametrize",
    "tiny_store": "tiny_world",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: pytest imports this package in every run, and torch takes seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
