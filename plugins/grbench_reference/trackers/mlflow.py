"""Logs a cell as a run of MLflow."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from grbench.errors import PluginError, first_line
from grbench.interfaces import Tracker
from grbench.registry.option_types import Count
from grbench_reference.trackers.package import tracker_package
from grbench_reference.trackers.tracked_cell import TrackedCell, final_numbers, outcome

SECONDS = 2.0
"""Values are sent so often, many in one request."""
MOST_METRICS, MOST_PARAMETERS, LONGEST_PARAMETER = 1000, 100, 6000
"""Limits of a request to MLflow."""

SETTINGS = {
    # A server that is gone should not hold training up for the minutes of MLflow's own defaults.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # A thread that sends statistics of use to MLflow's makers would run while costs are measured.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Environment variables for MLflow; one that the user has set is left as it is."""


class MLflow(Tracker):
    """Logs each cell as a run of MLflow: options as parameters, losses and validated metrics by step, the record's
    numbers (`test/<metric>`, `cost/<name>`, `count/<name>`), and as tags the suite, method, seed, digest and the paths
    of the record and the lists. `@` in names is `_at_`: MLflow forbids it. Needs `pip install 'grbench[mlflow]'`.

    Where a cell goes on from a checkpoint, its run goes on. MLflow cannot forget values: those of steps that are made
    again are there twice. A login is read from the environment (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD).

    Args:
        tracking_uri: server or store, such as `http://localhost:5000` or `sqlite:///mlflow.db`; null = that of
            MLFLOW_TRACKING_URI, or MLflow's own default.
        experiment: the experiment's name; null = the suite's.
        lists: link = the run names the path of the lists; upload = they are an artifact of the run too.
        every_steps: logs the losses of each n-th step; null = their means over the epoch so far, about twice a second.
    """

    def __init__(
        self,
        *,
        tracking_uri: str | None = None,
        experiment: str | None = None,
        lists: Literal["link", "upload"] = "link",
        every_steps: Count | None = None,
    ) -> None:
        self.tracking_uri, self.experiment, self.lists, self.every_steps = tracking_uri, experiment, lists, every_steps
        self._cell: TrackedCell
        self._client: Any
        self._run = ""
        self._waiting: list[Any] = []
        self._sent = self._step = 0.0

    def check(self) -> None:
        """Raises PluginError where the package is missing or the store does not answer."""
        client = self._connect()
        try:
            client.search_experiments(max_results=1)
        except Exception as error:  # MLflow raises what its stores raise
            raise PluginError(f"tracker mlflow: the store does not answer: {first_line(error)}") from error

    def start(self, folder: Path, cell: Mapping[str, Any]) -> None:
        """Creates the run. One that an earlier attempt at the cell has left open is marked as killed."""
        self._cell, self._client = TrackedCell(Path(folder), cell), self._connect()
        self._end_earlier()
        experiment = self._package().set_experiment(self.experiment or self._cell.suite)
        tags = {"suite": self._cell.suite, "method": self._cell.method, "seed": str(cell["seed"]), **self._cell.links}
        run = self._client.create_run(
            experiment.experiment_id,
            run_name=self._cell.name,
            tags={f"grbench.{key}": value for key, value in tags.items()},
        )
        self._run = run.info.run_id
        self._cell.keep_run(self._run)
        parameter = self._package().entities.Param
        options = [parameter(key, str(value)[:LONGEST_PARAMETER]) for key, value in self._cell.options.items()]
        for first in range(0, len(options), MOST_PARAMETERS):
            self._client.log_batch(self._run, params=options[first : first + MOST_PARAMETERS])

    def resume(self, folder: Path, cell: Mapping[str, Any], step: int) -> None:
        """Goes on with the run of the earlier attempt; where there is none, begins one."""
        self._cell, self._client = TrackedCell(Path(folder), cell), self._connect()
        run = self._cell.kept_run()
        if run is None:
            self.start(folder, cell)
            return
        self._client.update_run(run, status="RUNNING")
        self._run, self._step = run, step

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the values, together with those since the last request."""
        metric, now = self._package().entities.Metric, time.time()
        self._step = step
        self._waiting += [metric(_name(name), value, int(now * 1000), step) for name, value in values.items()]
        if now - self._sent >= SECONDS or len(self._waiting) >= MOST_METRICS // 2:
            self._send()

    def finish(self, record: Mapping[str, Any]) -> None:
        """Sends the record's numbers, and ends the run."""
        self.log(int(self._step), final_numbers(record))
        self._send()
        self._client.set_tag(self._run, "grbench.outcome", outcome(record)[:LONGEST_PARAMETER])
        if self.lists == "upload" and self._cell.lists.is_file():
            self._client.log_artifact(self._run, str(self._cell.lists))
        self._client.set_terminated(self._run, "FINISHED" if record["status"] == "ok" else "FAILED")

    def _connect(self) -> Any:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        package = self._package()
        if self.tracking_uri is not None:
            package.set_tracking_uri(self.tracking_uri)
        return package.MlflowClient()

    def _package(self) -> Any:
        return tracker_package("mlflow", "mlflow")

    def _send(self) -> None:
        while self._waiting:
            self._client.log_batch(self._run, metrics=self._waiting[:MOST_METRICS])
            del self._waiting[:MOST_METRICS]
        self._sent = time.time()

    def _end_earlier(self) -> None:
        earlier = self._cell.kept_run()
        if earlier is None:
            return
        try:
            if self._client.get_run(earlier).info.status == "RUNNING":
                self._client.set_terminated(earlier, "KILLED")
        except self._package().MlflowException as error:  # such as: it was deleted, or is of another store
            print(f"tracker mlflow: the run {earlier} of an earlier attempt: {first_line(error)}")  # noqa: T201


def _name(name: str) -> str:
    """The name of a metric in the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))
