"""Checks of trackers, which hear a short run of a plain method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from grbench.errors import PluginError
from grbench.evaluation.ranking import evaluating
from grbench.interfaces import Tracker, optional
from grbench.registry.attributes import every_steps
from grbench.registry.component import Component
from grbench.suite.cell import Cell
from grbench.suite.method import Method, Stage
from grbench.temporary import temporary_folder
from grbench.testing.checks.check import CheckSkippedError, KindChecks, require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.steps import copied, differing, tensors_of

CHECKS = KindChecks("trackers")

DIGEST = "0123456789abcdef"


def _cell() -> dict[str, Any]:
    """A cell as a run gives it to its trackers."""
    training = {"epochs": 2, "batch_size": 8, "select": "ndcg@10", "patience": None}
    stage = Stage("", None, ((Component("plain"), 1.0),), Component("plain"), Component("plain"), training)
    encoder = Component("plain", {"width": 8, "names": ["a", "b"], "vectors": None})
    parts = Component("plain"), encoder, Component("plain"), (stage,), ("history",), ()
    dataset, metrics = Component("made_up", {"path": "a folder/über"}), (Component("ndcg", {"k": 10}),)
    cell = Cell("checked", dataset, Component("plain"), metrics, Method("a method, <b>", *parts), 0)
    return {**cell.to_json(), "digest": DIGEST}


LOSSES: Mapping[str, float] = {"epoch": 1, "loss": 0.7, "users_per_second": 120.5}
SCORES: Mapping[str, float] = {"epoch": 1, "ndcg@10": 0.25, "hit_rate@10": 0.5}
RECORD: Mapping[str, Any] = {
    "suite": "checked",
    "method": "a method, <b>",
    "seed": 0,
    "status": "ok",
    "error": None,
    "scores": {"ndcg@10": 0.25, "coverage@10": None},
    "cost": {"train_seconds": 1.5, "phases": {"train": {"seconds": 1.5}}},
    "counts": {"parameters": 7, "ties": {"events": 0}},
    "curve": [dict(LOSSES)],
}
FAILURE: Mapping[str, Any] = {
    **RECORD,
    "status": "error",
    "error": {"type": "ValueError", "message": "it broke", "traceback": ""},
    "scores": {},
    "cost": {},
    "counts": {},
    "curve": [],
}


def _in_a_folder(plugin: CheckedPlugin, run: Callable[[Path], None]) -> None:
    """Calls `run` with the tracker's folder beside a record's lists. Skips where the tracker says that it cannot start
    here; raises whatever `run` raises."""
    try:
        optional(plugin.make(), Tracker.check)()
    except PluginError as error:
        raise CheckSkippedError(f"it cannot start here: {error}") from error
    with temporary_folder() as folder:
        own = folder / f"{DIGEST}.d" / plugin.name
        own.mkdir(parents=True)
        (folder / f"{DIGEST}.parquet").write_bytes(b"lists")
        run(own)


def _hear(tracker: Tracker, folder: Path, record: Mapping[str, Any] = RECORD) -> None:
    tracker.start(folder, _cell())
    tracker.log(1, dict(LOSSES))
    tracker.log(2, dict(SCORES))
    tracker.log(4, {**LOSSES, "loss": 0.5})
    tracker.finish(copy.deepcopy(dict(record)))


@CHECKS.add(
    base=True,
    means="A run with the tracker is refused.",
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
    means="Every cell goes on without the tracker.",
    mend="Take any name and number in log, and any JSON value in start and finish.",
)
def hears_a_run(plugin: CheckedPlugin) -> None:
    """Start, losses, scores and record."""
    _in_a_folder(plugin, lambda folder: _hear(plugin.make(), folder))


@CHECKS.add(
    means="The tracker is left out of a cell that has failed, so that nobody sees there that it did.",
    mend="Take a record without scores, costs and counts in finish, and show its status and error.",
)
def hears_of_a_failure(plugin: CheckedPlugin) -> None:
    """A record of a cell that failed before anything was scored."""
    _in_a_folder(plugin, lambda folder: _hear(plugin.make(), folder, FAILURE))


@CHECKS.add(
    means="A cell that goes on from a checkpoint goes on without the tracker.",
    mend="Let resume take up the folder as another process has left it; without a log there, begin one.",
)
def resumes(plugin: CheckedPlugin) -> None:
    """After a run that was killed behind step 4, from step 2 on; and where the log is gone."""

    def run(folder: Path) -> None:
        first = plugin.make()
        first.start(folder, _cell())
        for step in (1, 2, 4):
            first.log(step, dict(LOSSES))
        for place in (folder, folder.with_name("empty")):
            place.mkdir(exist_ok=True)
            second = plugin.make()
            optional(second, Tracker.resume)(place, _cell(), 2)
            second.log(4, dict(LOSSES))
            second.finish(dict(RECORD))

    _in_a_folder(plugin, run)


@CHECKS.add(
    means="A run with the tracker has other numbers, or another record, than one without.",
    mend="Copy what you keep, and change neither values, cell, record nor encoder.",
)
def changes_nothing(plugin: CheckedPlugin) -> None:
    """What it is given, the encoder and the random generators stay."""

    def run(folder: Path) -> None:
        tracker = plugin.make()
        cell, values, record = _cell(), dict(LOSSES), copy.deepcopy(dict(RECORD))
        generator = torch.get_rng_state()
        tracker.start(folder, cell)
        tracker.log(1, values)
        encoder = plugin.make_encoder()
        torch.set_rng_state(generator)
        weights = copied(tensors_of(encoder))
        with evaluating(encoder):
            optional(tracker, Tracker.keep)(encoder, plugin.world.store.catalogue.num_items)
        tracker.finish(record)
        require(cell == _cell(), "it changes the cell")
        require(values == LOSSES, "it changes the values that are logged")
        require(record == RECORD, "it changes the record")
        require(not differing(weights, tensors_of(encoder)), "it changes the encoder")
        require(torch.equal(generator, torch.get_rng_state()), "it draws random numbers")

    _in_a_folder(plugin, run)


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

    _in_a_folder(plugin, run)
