"""What a cell says while it runs, kept."""

from __future__ import annotations

import json
from typing import Any


class Heard:
    """A tracker, and what the parent would hear."""

    def __init__(self, every_steps: int | None = None) -> None:
        if every_steps is not None:  # else it is a tracker that knows nothing of it
            self.every_steps = every_steps
        self.lines: list[str] = []
        self.logged: list[tuple[int, dict[str, float]]] = []

    def write(self, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None:
        pass

    def log(self, step: int, values: dict[str, float]) -> None:
        self.logged.append((step, values))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]
