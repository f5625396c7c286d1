"""One thing that was looked at, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Severity = Literal["ok", "note", "stop"]
"""ok: nothing to do; note: runs go without it, or slower; stop: a run would fail."""


@dataclass(frozen=True)
class Diagnosis:
    """topic: what was looked at, such as `torch`; text: what is there, one line; remedy: what to do about it, mostly a
    command; facts: the same for programs, JSON-ready."""

    topic: str
    text: str
    severity: Severity = "ok"
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def to_json(self) -> dict[str, Any]:
        """As a mapping."""
        named = {"topic": self.topic, "severity": self.severity, "text": self.text}
        return named | ({"remedy": self.remedy} if self.remedy else {}) | dict(self.facts)
