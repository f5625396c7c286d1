"""What the child that runs a cell says of it, to the parent and to the method's trackers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from grbench.evaluation.ranking import evaluating
from grbench.interfaces import Tracker, every_steps, optional
from grbench.run.child_process import ChildMessages

REPORT_SECONDS = 0.5
"""How often the parent hears how far a phase is; more would only cost time."""


class Reporter:
    """Tells the parent and the trackers how the cell is doing."""

    def __init__(self, events: ChildMessages, trackers: list[Any]) -> None:
        self._events, self._last = events, 0.0
        self._trackers = [(tracker, every_steps(tracker)) for tracker in trackers]
        self.log_every = frozenset(every for _, every in self._trackers if every is not None)

    def __call__(self, event: str, /, **values: Any) -> None:
        if "total_steps" in values:
            self._log(event, values["total_steps"], values)
        if event == "step":  # for trackers alone: who follows the run is shown means
            return
        now = time.monotonic()
        if event in ("phase", "peak", "validate") or now - self._last >= REPORT_SECONDS:
            self._last = now
            self._events(event, **values)

    def _log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Gives the trackers what they hear of: single steps as often as they ask, or means; validations."""
        numbers = {
            key: float(value)
            for key, value in values.items()
            if isinstance(value, int | float) and key not in ("epochs", "step", "steps", "total_steps")
        }
        for tracker, every in self._trackers:
            hears = {"train": every is None, "step": every is not None and step % every == 0}
            if hears.get(event, True):
                tracker.log(step, numbers)

    def keep(self, encoder: nn.Module, num_items: int) -> None:
        """Shows the encoder to the trackers that keep something of it."""
        with evaluating(encoder):
            for tracker, _ in self._trackers:
                optional(tracker, Tracker.keep)(encoder, num_items)
