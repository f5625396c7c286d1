"""Logs the training of a cell as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from grbench.errors import RunError
from grbench.interfaces import Tracker
from grbench.registry.option_types import Count


class JsonLines(Tracker):
    """Writes `<digest of the cell>.d/jsonl/log.jsonl` beside the record: the cell, every logged step, the scores.

    Each line is on disk before training goes on, so that a killed cell leaves its log. `step` counts the steps over all
    epochs and stages.

    Args:
        every_steps: logs the losses of each n-th step; null = their means over the epoch so far, about twice a second.
    """

    def __init__(self, *, every_steps: Count | None = None) -> None:
        self.every_steps = every_steps
        self._file: IO[str] | None = None

    def start(self, folder: Path, cell: Mapping[str, Any]) -> None:
        """Opens the log, overwriting an earlier one; raises RunError where the folder cannot be written."""
        path = Path(folder) / "log.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise RunError(f"{path}: the tracker jsonl cannot write here ({error.strerror})") from error
        self._write({"event": "start", "cell": cell})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line of values."""
        self._write({**values, "event": "log", "step": step})

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes the scores, if the cell has any, and closes the log."""
        self._write({"event": "finish", "status": record.get("status"), "scores": record.get("scores")})
        assert self._file is not None
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None, "start comes first"
        self._file.write(json.dumps(line, default=str) + "\n")
