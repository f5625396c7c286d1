"""Logs a cell as a run of Trackio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from grbench.interfaces import Tracker
from grbench.registry.option_types import Count
from grbench_reference.trackers.package import tracker_package
from grbench_reference.trackers.tracked_cell import TrackedCell, final_numbers


class Trackio(Tracker):
    """Logs each cell as a run of Trackio: options and the paths of the record and the lists as its config, losses and
    validated metrics by step, and at the last step the record's numbers (`test/<metric>`, `cost/<name>`,
    `count/<name>`). Seeds of a method are a group. Needs `pip install 'grbench[trackio]'`.

    Runs are kept in a local database, in TRACKIO_DIR where that is set, or sent to a Space of Hugging Face. Where a
    cell goes on from a checkpoint, its run goes on; values of steps that are made again are there twice.

    Args:
        project: the project's name; null = the suite's.
        space_id: the Space that runs are sent to; null = TRACKIO_SPACE_ID, or none.
        lists: link = the config names the path of the lists; upload = they are an artifact of the run too.
        every_steps: logs the losses of each n-th step; null = their means over the epoch so far, about twice a second.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        space_id: str | None = None,
        lists: Literal["link", "upload"] = "link",
        every_steps: Count | None = None,
    ) -> None:
        self.project, self.space_id, self.lists, self.every_steps = project, space_id, lists, every_steps
        self._step = 0
        self._cell: TrackedCell
        self._run: Any

    def check(self) -> None:
        """Raises PluginError where the package is missing."""
        tracker_package("trackio", "trackio")

    def start(self, folder: Path, cell: Mapping[str, Any]) -> None:
        """Begins a run."""
        self._begin(folder, cell, "never")

    def resume(self, folder: Path, cell: Mapping[str, Any], step: int) -> None:
        """Goes on with the newest run of the cell; where there is none, begins one."""
        self._begin(folder, cell, "allow")
        self._step = step

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values, which a thread of the package writes or sends."""
        self._step = step
        self._run.log(dict(values), step=step)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Logs the record's numbers, and ends the run."""
        self._run.log({**final_numbers(record), "outcome": str(record["status"])}, step=self._step)
        if self.lists == "upload" and self._cell.lists.is_file():
            self._run.log_artifact(str(self._cell.lists), name=f"lists-{self._cell.digest}", type="lists")
        tracker_package("trackio", "trackio").finish()  # of the package: the run's own is called again at exit

    def _begin(self, folder: Path, cell: Mapping[str, Any], resume: str) -> None:
        self._cell = TrackedCell(Path(folder), cell)
        self._run = tracker_package("trackio", "trackio").init(
            project=self.project or self._cell.suite,
            name=f"{self._cell.name} ({self._cell.digest[:8]})",  # a run goes on by its name
            group=self._cell.method,
            space_id=self.space_id,
            config={**self._cell.options, **self._cell.links},
            resume=resume,
            embed=False,
            auto_log_gpu=False,  # the harness measures the machine itself
            auto_log_cpu=False,
        )
