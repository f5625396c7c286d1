"""Writes event files for TensorBoard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grbench.interfaces import Tracker
from grbench.registry.option_types import Count
from grbench_reference.trackers.package import tracker_package
from grbench_reference.trackers.tracked_cell import TrackedCell, final_numbers, outcome


class TensorBoard(Tracker):
    """Writes `<digest of the cell>.d/tensorboard/<method>-seed-<n>` beside the record: losses and validated metrics by
    step, options and final scores (tab HPARAMS), paths of the record and the lists (tab TEXT).
    `tensorboard --logdir results/<suite>` shows all cells of a suite. Needs `pip install 'grbench[tensorboard]'`.

    What was logged is in the file before training goes on. Where a cell goes on from a checkpoint, what was logged for
    later steps is not shown.

    Args:
        every_steps: logs the losses of each n-th step; null = their means over the epoch so far, about twice a second.
    """

    def __init__(self, *, every_steps: Count | None = None) -> None:
        self.every_steps = every_steps
        self._step = 0
        self._writer: Any
        self._cell: TrackedCell

    def check(self) -> None:
        """Raises PluginError where the package is missing."""
        tracker_package("torch.utils.tensorboard", "tensorboard")

    def start(self, folder: Path, cell: Mapping[str, Any]) -> None:
        """Begins the run anew: event files of an earlier one are removed."""
        for earlier in Path(folder).rglob("events.out.tfevents.*"):
            earlier.unlink()
        self._open(Path(folder), cell, None)
        shown = "\n".join(f"    {key}: {value}" for key, value in {**self._cell.options, **self._cell.links}.items())
        self._writer.add_text("options", shown, 0)  # indented: Markdown shows it as it is
        self._writer.flush()

    def resume(self, folder: Path, cell: Mapping[str, Any], step: int) -> None:
        """Goes on with the run; what it has of later steps is not shown any more."""
        if not any(Path(folder).rglob("events.out.tfevents.*")):
            self.start(folder, cell)
            return
        self._open(Path(folder), cell, step + 1)
        self._step = step

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a scalar for each value."""
        self._step = step
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes the record's numbers and, with the test scores, the options as hyperparameters."""
        numbers = final_numbers(record)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, self._step)
        self._writer.add_text("outcome", f"    {outcome(record)}", self._step)
        options = {key: str(value) if value is None else value for key, value in self._cell.options.items()}
        scores = {name: value for name, value in numbers.items() if name.startswith("test/")}
        # Not `add_hparams`, which writes a second run beside this one.
        for summary in tracker_package("torch.utils.tensorboard.summary", "tensorboard").hparams(options, scores):
            self._writer.file_writer.add_summary(summary)
        self._writer.close()

    def _open(self, folder: Path, cell: Mapping[str, Any], purge_step: int | None) -> None:
        self._cell = TrackedCell(folder, cell)
        run = re.sub(r"[^\w.@=+-]+", "-", self._cell.name)
        writer = tracker_package("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._writer = writer(str(folder / run), purge_step=purge_step)
