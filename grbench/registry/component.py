"""A plug-in of a suite, with its options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Component:
    """name: of the plug-in; options: those that the suite gives, in a cell all options with their defaults."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
