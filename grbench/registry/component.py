"""A plug-in as a suite names it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Component:
    """A plug-in by name, with its options; in a cell they are all there, defaults filled in."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
