"""Logs a cell as a run of Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from grbench.errors import PluginError, first_line
from grbench.interfaces import Tracker
from grbench.registry.option_types import Count
from grbench_reference.trackers.package import tracker_package
from grbench_reference.trackers.tracked_cell import TrackedCell, final_numbers, outcome

FINISH_SECONDS = 60.0
"""How long the end of a run waits for what is not sent yet."""


class WandB(Tracker):
    """Logs each cell as a run of Weights & Biases: options as its config, losses and validated metrics by `step`, the
    record's numbers (`test/<metric>`, `cost/<name>`, `count/<name>`) as its summary, and the paths of the record and
    the lists. Seeds of a method are a group. Needs `pip install 'grbench[wandb]'`, and a login (`wandb login`) or
    `mode: offline`.

    Where a cell goes on from a checkpoint, its run goes on; values of steps that are made again are there twice.

    Args:
        project: the project's name; null = the suite's.
        entity: the team; null = the user's default.
        mode: offline = runs are kept in ./wandb, or in WANDB_DIR, and sent later by `wandb sync`; null = WANDB_MODE, or
            online.
        lists: link = the config names the path of the lists; upload = they are an artifact of the run too.
        every_steps: logs the losses of each n-th step; null = their means over the epoch so far, about twice a second.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        lists: Literal["link", "upload"] = "link",
        every_steps: Count | None = None,
    ) -> None:
        self.project, self.entity, self.mode, self.lists, self.every_steps = project, entity, mode, lists, every_steps
        self._cell: TrackedCell
        self._run: Any

    def check(self) -> None:
        """Raises PluginError where the package is missing or nobody is logged in."""
        wandb = self._package()
        if (self.mode or wandb.setup().settings.mode) != "online":
            return
        try:
            logged_in = wandb.login(prompt=False)
        except wandb.Error as error:
            raise PluginError(
                f"tracker wandb: {first_line(error)}; log in (`wandb login`) or give the tracker `mode: offline`"
            ) from error
        if not logged_in:
            raise PluginError("tracker wandb: not logged in; log in (`wandb login`) or give it `mode: offline`")

    def start(self, folder: Path, cell: Mapping[str, Any]) -> None:
        """Begins a run."""
        self._begin(folder, cell, None)

    def resume(self, folder: Path, cell: Mapping[str, Any], step: int) -> None:  # noqa: ARG002 - W&B cannot go back
        """Goes on with the run of the earlier attempt; where there is none, begins one."""
        self._begin(folder, cell, TrackedCell(Path(folder), cell).kept_run())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values, which a process of the package sends."""
        self._run.log({"step": step, **values})

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes the summary, and ends the run."""
        self._run.summary.update({**final_numbers(record), "outcome": outcome(record)})
        if self.lists == "upload" and self._cell.lists.is_file():
            artifact = self._package().Artifact(f"lists-{self._cell.digest}", type="lists")
            artifact.add_file(str(self._cell.lists))
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=0 if record["status"] == "ok" else 1)

    def _begin(self, folder: Path, cell: Mapping[str, Any], run: str | None) -> None:
        wandb = self._package()
        self._cell = TrackedCell(Path(folder), cell)
        self._run = wandb.init(
            project=self.project or self._cell.suite,
            entity=self.entity,
            mode=self.mode,
            id=run,
            resume=None if run is None else "allow",
            name=self._cell.name,
            group=self._cell.method,
            config={**self._cell.options, **self._cell.links},
            settings=wandb.Settings(
                **{"reinit": "finish_previous", "silent": True, "save_code": False},
                # The harness measures the machine itself, and keeps the output.
                **{"x_disable_stats": True, "console": "off"},
                # What could not be sent by then is on disk, for `wandb sync`; the next cell does not wait for it.
                **{"finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True},
            ),
        )
        self._cell.keep_run(self._run.id)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _package(self) -> Any:
        return tracker_package("wandb", "wandb")
