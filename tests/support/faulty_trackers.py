"""Trackers with one fault each."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from faulty_parts import fails

from grbench.interfaces import Tracker


class Lines(Tracker):
    """Writes one line a log."""

    def start(self, folder, cell):
        self.path = Path(folder) / "log.txt"
        self.path.write_text(json.dumps(cell) + "\n")

    def log(self, step, values):
        with self.path.open("a") as file:
            file.write(f"{step} {values}\n")

    def finish(self, record):
        self.log(0, {"status": record["status"]})


@fails("trackers", "interface")
class EveryNoSteps(Lines):
    every_steps = 0


@fails("trackers", "hears_a_run")
class WantsALoss(Lines):
    def log(self, step, values):
        super().log(step, {"loss": values["loss"]})


@fails("trackers", "hears_of_a_failure")
class WantsScores(Lines):
    def finish(self, record):
        super().log(0, {"ndcg@10": record["scores"]["ndcg@10"]})


@fails("trackers", "resumes")
class WantsAnOldLog(Lines):
    def resume(self, folder, cell, step):
        self.path = Path(folder) / "log.txt"
        self.path.read_text()


@fails("trackers", "changes_nothing")
class TakesTheEpoch(Lines):
    def log(self, step, values):
        super().log(values.pop("epoch"), values)


@fails("trackers", "writes_in_its_folder")
class WritesAnywhere(Lines):
    def start(self, folder, cell):
        super().start(tempfile.mkdtemp(dir=Path(folder).parent), cell)
