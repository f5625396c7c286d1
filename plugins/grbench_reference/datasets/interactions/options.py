"""How a log is written: its layout, and a table's columns and text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LogLayout = Literal["table", "json", "pairs", "histories"]
"""table: one event a row, with columns; json: {user: [item, ...]}; pairs: `user item` a line; histories: `user item
item ...` a line."""

TimeUnit = Literal["s", "ms", "us", "ns"]


@dataclass(frozen=True)
class LogFormat:
    """How a table is written. user, item, timestamp, action, history: names of its columns, None = it has no such
    column; delimiter: None = by the file's suffix; time_unit: of times that are numbers."""

    user: str = "user"
    item: str | None = "item"
    timestamp: str | None = "timestamp"
    action: str | None = None
    history: str | None = None
    delimiter: str | None = None
    header: bool = True
    time_unit: TimeUnit = "s"

    @property
    def id_columns(self) -> list[str]:
        """Names of the columns of ids."""
        return [self.user] if self.item is None else [self.user, self.item]

    @property
    def columns(self) -> list[str]:
        """Names of all columns to read, each once."""
        named = (*self.id_columns, self.timestamp, self.action, self.history)
        return [*dict.fromkeys(name for name in named if name is not None)]
