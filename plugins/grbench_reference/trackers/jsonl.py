"""Logs the training of a cell as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from grbench.errors import RunError
from grbench.interfaces import Tracker
from grbench.registry.option_types import Count
from grbench.temporary import replacing
from grbench_reference.trackers.tracked_cell import test_scores


class JsonLines(Tracker):
    """Writes `<digest of the cell>.d/jsonl/log.jsonl` beside the record: the cell, every logged step, the scores.

    Each line is on disk before training goes on, so that a killed cell leaves its log. `step` counts the steps over all
    epochs and stages. Where a cell goes on from a checkpoint, lines of later steps are removed, because those steps are
    made again, and a line with the event `resume` says from which step on.

    Args:
        every_steps: logs the losses of each n-th step; null = their means over the epoch so far, about twice a second.
    """

    def __init__(self, *, every_steps: Count | None = None) -> None:
        self.every_steps = every_steps
        self._file: IO[str] | None = None

    def start(self, folder: Path, cell: Mapping[str, Any]) -> None:
        """Opens the log, overwriting an earlier one; raises RunError where the folder cannot be written."""
        self._open(Path(folder) / "log.jsonl", "")
        self._write({"event": "start", "cell": cell})

    def resume(self, folder: Path, cell: Mapping[str, Any], step: int) -> None:
        """Opens the log behind the lines up to this step; where there is no log, it begins here."""
        path = Path(folder) / "log.jsonl"
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise RunError(f"{path}: the tracker jsonl cannot go on from here ({error.strerror})") from error
        self._open(path, "".join(line for line in lines if _is_of_steps_up_to(line, step)))
        if not lines:
            self._write({"event": "start", "cell": cell})
        self._write({"event": "resume", "step": step})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line of values."""
        self._write({**values, "event": "log", "step": step})

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes the scores, if the cell has any that may be shown, and closes the log."""
        self._write({"event": "finish", "status": record.get("status"), "scores": test_scores(record)})
        assert self._file is not None
        self._file.close()

    def _open(self, path: Path, content: str) -> None:
        """Opens the log behind its first lines; those that are there already are replaced in one go."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                partial.write_text(content, encoding="utf-8")
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise RunError(f"{path}: the tracker jsonl cannot write here ({error.strerror})") from error

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None, "start comes first"
        self._file.write(json.dumps(line, default=str) + "\n")


def _is_of_steps_up_to(line: str, step: int) -> bool:
    """Whether a line is whole and of no later step."""
    try:
        said = json.loads(line)
        return line.endswith("\n") and said["event"] != "finish" and int(said.get("step", 0)) <= step
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
