"""Checks of trackers, which hear a short run of a plain method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from grbench.evaluation.ranking import evaluating
from grbench.interfaces import Tracker, every_steps, optional
from grbench.temporary import temporary_folder
from grbench.testing.checks.check import Checks, require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.steps import copied, differing, tensors_of

CHECKS = Checks("trackers")

CELL: Mapping[str, Any] = {
    "suite": "checked",
    "dataset": {"name": "made_up", "options": {"size": 3, "path": None, "names": ["a", "b"]}},
    "method": {"name": "a method, über/<b>", "encoder": {"name": "plain", "options": {"width": 8}}},
    "seed": 0,
}
LOSSES: Mapping[str, float] = {"epoch": 1, "loss": 0.7, "users_per_second": 120.5}
SCORES: Mapping[str, float] = {"epoch": 1, "ndcg@10": 0.25, "hit_rate(alpha=0.5)@10": 0.5}
RECORD: Mapping[str, Any] = {"status": "ok", "scores": {"ndcg@10": 0.25}, "method": "plain", "curve": [dict(LOSSES)]}


def _in_a_folder(run: Callable[[Path], None]) -> None:
    """Raises whatever `run` raises."""
    with temporary_folder() as folder:
        own = folder / "tracker"
        own.mkdir()
        run(own)


def _hear(tracker: Tracker, folder: Path, record: Mapping[str, Any] = RECORD) -> None:
    tracker.start(folder, copy.deepcopy(dict(CELL)))
    tracker.log(1, dict(LOSSES))
    tracker.log(2, {**SCORES})
    tracker.log(4, {**LOSSES, "loss": 0.5})
    tracker.finish(copy.deepcopy(dict(record)))


@CHECKS.add(
    means="The run stops when the tracker is made, or logs nothing.",
    mend="Set `every_steps` to a whole number from 1 or None, and `needs` to a tuple of interfaces.",
)
def interface(plugin: CheckedPlugin) -> None:
    """What it wants to hear."""
    tracker = plugin.make()
    every_steps(tracker)
    needs = getattr(type(tracker), "needs", Tracker.needs)
    right = isinstance(needs, tuple) and all(isinstance(each, type) for each in needs)
    require(right, f"needs is {needs!r}, not a tuple of interfaces")


@CHECKS.add(
    means="Every cell with the tracker fails.",
    mend="Take any name and number in log, and any JSON value in start and finish.",
)
def hears_a_run(plugin: CheckedPlugin) -> None:
    """Start, losses, scores and record."""
    _in_a_folder(lambda folder: _hear(plugin.make(), folder))


@CHECKS.add(
    means="A cell that has failed is recorded as a failure of the tracker, so that nobody learns why.",
    mend="Take a record without scores in finish: `record.get('scores')`.",
)
def hears_of_a_failure(plugin: CheckedPlugin) -> None:
    """A record of a cell that ran out of memory before anything was scored."""
    record = {"status": "oom", "reason": "out of memory", "scores": None}
    _in_a_folder(lambda folder: _hear(plugin.make(), folder, record))


@CHECKS.add(
    means="A cell that goes on from a checkpoint fails, or its log has steps twice.",
    mend="Let resume take up the folder as another process has left it; without a log there, begin one.",
)
def resumes(plugin: CheckedPlugin) -> None:
    """After a run that was killed behind step 4, from step 2 on; and where the log is gone."""

    def run(folder: Path) -> None:
        first = plugin.make()
        first.start(folder, dict(CELL))
        for step in (1, 2, 4):
            first.log(step, dict(LOSSES))
        for place in (folder, folder.with_name("empty")):
            place.mkdir(exist_ok=True)
            second = plugin.make()
            optional(second, Tracker.resume)(place, dict(CELL), 2)
            second.log(4, dict(LOSSES))
            second.finish(dict(RECORD))

    _in_a_folder(run)


@CHECKS.add(
    means="A run with the tracker has other numbers, or another record, than one without.",
    mend="Copy what you keep, and change neither values, cell, record nor encoder.",
)
def changes_nothing(plugin: CheckedPlugin) -> None:
    """What it is given, the encoder and the random generators stay."""

    def run(folder: Path) -> None:
        tracker = plugin.make()
        cell, values, record = (copy.deepcopy(dict(each)) for each in (CELL, LOSSES, RECORD))
        generator = torch.get_rng_state()
        tracker.start(folder, cell)
        tracker.log(1, values)
        encoder = plugin.make_encoder()
        torch.set_rng_state(generator)
        weights = copied(tensors_of(encoder))
        with evaluating(encoder):
            optional(tracker, Tracker.keep)(encoder, plugin.world.store.catalogue.num_items)
        tracker.finish(record)
        require(cell == CELL, "it changes the cell")
        require(values == LOSSES, "it changes the values that are logged")
        require(record == RECORD, "it changes the record")
        require(not differing(weights, tensors_of(encoder)), "it changes the encoder")
        require(torch.equal(generator, torch.get_rng_state()), "it draws random numbers")

    _in_a_folder(run)


@CHECKS.add(
    means="Cells that run side by side overwrite each other's files, and files are left where nobody expects them.",
    mend="Write below the folder that start is given only.",
)
def writes_in_its_folder(plugin: CheckedPlugin) -> None:
    """Files that are new after a run."""
    from grbench.testing.checks.written_files import WrittenFiles

    def run(folder: Path) -> None:
        with WrittenFiles() as files:
            _hear(plugin.make(), folder)
        skip_unless(files.written, "no file is seen that it writes")
        others = [path for path in files.written if not path.is_relative_to(folder.resolve())]
        require(not others, f"it writes {', '.join(map(str, others[:3]))}")

    _in_a_folder(run)
