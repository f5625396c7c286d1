"""Trackers that lack something are refused before anything runs; one that fails on the way stops no training."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from demo_suite import cells
from heard import Heard
from tiny_suite import run, suite_of

from grbench import hookimpl
from grbench.errors import GRBenchError
from grbench.interfaces import Tracker
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.run.backends.child_process import ChildMessages
from grbench.run.reporter import Reporter
from grbench.run.run_cell import start_trackers

TRAINED = (
    "{encoder: {name: causal_transformer, width: 8}, loss: bce, training: {epochs: 1, batch_size: 8}, trackers: %s}"
)


@dataclass
class Fails(Tracker):
    """Raises in one of its methods, and notes which were called."""

    at: str

    def __post_init__(self) -> None:
        self.called: list[str] = []

    def start(self, folder: Path, cell: Mapping[str, Any]) -> None:
        self._call("start")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._call("log")

    def finish(self, record: Mapping[str, Any]) -> None:
        self._call("finish")

    def _call(self, name: str) -> None:
        self.called.append(name)
        if name == self.at:
            raise ConnectionError("no answer\nfrom the server")


class Knows(Heard):
    """Keeps what it was told at its start, and of the end."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Path, Mapping[str, Any]]] = []
        self.ended: list[Mapping[str, Any]] = []

    def start(self, folder: Path, cell: Mapping[str, Any]) -> None:
        self.told.append((folder, cell))

    def finish(self, record: Mapping[str, Any]) -> None:
        self.ended.append(record)


def of_parent(said: io.StringIO) -> list[str]:
    events = [json.loads(line) for line in said.getvalue().splitlines()]
    return [event["text"] for event in events if event["event"] == "note"]


@pytest.mark.parametrize("at", ["log", "finish"])
def test_a_tracker_that_fails_is_named_once_and_others_hear_on(at: str) -> None:
    said, fails, hears = io.StringIO(), Fails(at), Knows()
    report = Reporter(ChildMessages(said))
    report.add("fails", fails)
    report.add("hears", hears)
    report("train", total_steps=1, loss=0.5)
    report("train", total_steps=2, loss=0.25)
    assert hears.logged == [(1, {"loss": 0.5}), (2, {"loss": 0.25})]
    report.finish({"status": "ok"})
    assert hears.ended == [{"status": "ok"}]
    assert fails.called == {"log": ["log"], "finish": ["log", "log", "finish"]}[at]
    assert of_parent(said) == ["tracker fails: no answer; the cell goes on without it"]


def test_a_tracker_that_cannot_start_is_left_out_and_others_know_their_cell(tmp_path: Path) -> None:
    fails, knows, said = Fails("start"), Knows(), io.StringIO()

    class Plugins:
        @hookimpl
        def register_trackers(self, register: Any) -> None:
            register("fails", lambda: fails)
            register("knows", lambda: knows)

    registry = Registry()
    registry.add("trackers", "some", "1", Plugins)
    report = Reporter(ChildMessages(said))
    cell = cells(tmp_path)[0]
    trackers = (Component("fails", {}), Component("knows", {}))
    cell = replace(cell, method=replace(cell.method, trackers=trackers))
    blank = Record("d" * 16, "demo", "a", 0, "error", trial={"number": 2})
    start_trackers(cell, blank, report, registry=registry, results=tmp_path, steps=0)
    report("train", total_steps=1, loss=0.5)
    assert fails.called == ["start"]
    assert of_parent(said) == ["tracker fails: no answer; the cell goes on without it"]
    assert knows.logged == [(1, {"loss": 0.5})]
    ((folder, heard),) = knows.told
    assert folder == tmp_path / f"{'d' * 16}.d" / "knows"
    assert (heard["digest"], heard["trial"], heard["seed"]) == ("d" * 16, {"number": 2}, 0)


def test_a_tracker_without_its_package_is_refused_before_anything_runs(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as Python knows a package that cannot be imported
    suite = suite_of(world, f"one: {TRAINED % '[wandb]'}", "two: {encoder: most_popular, trackers: [wandb]}")
    with pytest.raises(GRBenchError, match=r"pip install 'grbench\[wandb\]'") as raised:
        run(suite)
    for method in ("one", "two"):
        assert f"suite.yaml: methods.{method}.trackers: tracker wandb: wandb cannot be imported" in str(raised.value)
    assert not (world / "results").exists()
