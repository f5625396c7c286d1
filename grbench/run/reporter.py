"""What the child that runs a cell says of it, to the parent and to the method's trackers."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from grbench.errors import first_line
from grbench.evaluation.ranking import evaluating
from grbench.interfaces import Tracker, optional
from grbench.registry.attributes import every_steps
from grbench.run.backends.child_process import ChildMessages

REPORT_SECONDS = 0.5
"""How often the parent hears how far a phase is; more would only cost time."""


class Reporter:
    """Tells the parent and the trackers how the cell is doing. A tracker that raises is told nothing more, and the
    parent is told why."""

    def __init__(self, events: ChildMessages, trackers: Sequence[Any] = ()) -> None:
        self._events, self._last = events, 0.0
        self._trackers: list[tuple[str, Any, int | None]] = []
        for tracker in trackers:
            self.add(type(tracker).__name__, tracker)

    def add(self, name: str, tracker: Any) -> None:
        """Adds a tracker; raises PluginError where its `every_steps` is not valid."""
        self._trackers.append((name, tracker, every_steps(tracker)))

    @property
    def log_every(self) -> frozenset[int]:
        """The numbers n of which a tracker hears the losses of each n-th step."""
        return frozenset(every for _, _, every in self._trackers if every is not None)

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
        for name, tracker, every in list(self._trackers):
            hears = {"train": every is None, "step": every is not None and step % every == 0}
            if hears.get(event, True):
                try:
                    tracker.log(step, numbers)
                except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; no training is lost for it
                    self.leave_out(name, tracker, error)

    def keep(self, encoder: nn.Module, num_items: int) -> None:
        """Shows the encoder to the trackers that keep something of it."""
        with evaluating(encoder):
            for _, tracker, _ in self._trackers:
                optional(tracker, Tracker.keep)(encoder, num_items)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Gives the trackers the record of the cell, which has ended."""
        for name, tracker, _ in list(self._trackers):
            try:
                tracker.finish(record)
            except Exception as error:  # noqa: BLE001 - as in `_log`; the record is on disk
                self.leave_out(name, tracker, error)

    def leave_out(self, name: str, tracker: Any, error: Exception) -> None:
        """Goes on without the tracker, which raised this, and says so."""
        traceback.print_exception(error)
        self._trackers = [each for each in self._trackers if each[1] is not tracker]
        self._events("note", text=f"tracker {name}: {first_line(error)}; the cell goes on without it")
