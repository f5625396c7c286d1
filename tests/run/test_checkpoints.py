"""A cell that is stopped, wherever it is, goes on from its checkpoint and ends as if nothing had happened."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from attempts import (
    BLANK,
    EVERY_STEP,
    Attempts,
    Drawn,
    cell_of,
    registry_of_attempts,
    results,
    store_of_attempts,
)
from torch import nn
from training import state_of

from grbench.checkpoint.file import read_about, read_file, write_file
from grbench.cost.meter import Meter
from grbench.cost.monitor import Throughput
from grbench.data.store import Store
from grbench.errors import RunError
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.results.record_files import checkpoint_folder, remove_checkpoints
from grbench.run import checkpoints as module
from grbench.run.backends.child_process import ChildMessages
from grbench.run.beside_file import BESIDE, keep_beside
from grbench.run.checkpoints import ATTEMPT, TOKENIZER, TRAINING, Checkpoints
from grbench.run.run_cell import main
from grbench.training.options import TrainingOptions


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a power failure is not among what happens here
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return registry_of_attempts()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_of_attempts(tmp_path_factory.mktemp("store"))


@pytest.fixture
def attempts(tmp_path: Path, store: Store, registry: Registry) -> Any:
    return lambda name, place="cell": Attempts(cell_of(name), tmp_path / place, store, registry)


@pytest.mark.parametrize("name", ["validated", "generative", "two stages", "learnt codes"])
def test_wherever_a_cell_is_stopped_it_ends_the_same(name: str, attempts: Any) -> None:
    whole = attempts(name, "whole")
    expected = results(whole.run(minutes=0))
    assert not whole.place.exists()
    steps = expected[3]["steps_run"]
    for stop in (1, steps // 2 + 1, steps, "search"):
        again = attempts(name, f"stopped at {stop}")
        before = Drawn.fitted
        assert again.run(stop) is None
        ended = again.run()
        assert results(ended) == expected
        assert again.notes[0].startswith("going on ")
        assert Drawn.fitted - before <= 1  # the tokenizer is not fitted again
        record, _ = ended
        assert record.cost["resumptions"] == 1
        assert "resume" in record.cost["phases"]
        assert record.cost["phases"]["prepare"]["runs"] == 1


def test_what_is_said_names_the_place(attempts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_SHARE", float("inf"))  # every epoch is saved
    cell = attempts("two stages")
    for stop, found in {  # of four steps an epoch
        1: [],
        3: ["going on from the fitted tokenizer"],
        4: ["going on from stage codes, epoch 1, step 2"],
        5: ["going on from stage codes, epoch 1, step 3"],
        6: ["going on after stage codes, epoch 1"],
        9: ["going on from stage codes, epoch 2, step 1"],
        "search": ["going on after stage codes, epoch 2"],
    }.items():
        cell.run(stop)
        assert cell.notes == found
    cell.run()
    assert cell.notes == ["going on after stage both, epoch 4"]


def test_a_cell_that_is_stopped_twice_has_the_sums(attempts: Any) -> None:
    cell = attempts("validated")
    expected = results(attempts("validated", "whole").run(minutes=0))
    assert cell.run(3) is None
    assert cell.run(6) is None
    assert cell.rows[0]["epoch"] == 1  # the curve so far, for the record of an interrupted cell
    ended = cell.run()
    assert results(ended) == expected
    record, _ = ended
    cost, phases = record.cost, record.cost["phases"]
    assert cost["resumptions"] == 2
    assert cost["earlier_seconds"] > 0
    assert cost["lost_seconds"] >= 0
    assert phases["resume"]["runs"] == 2
    assert phases["checkpoint"]["seconds"] > 0
    assert phases["train"]["seconds"] > 0
    assert {"begun_with"}.isdisjoint(cost)


@pytest.mark.parametrize(("step", "found"), [(2, "from epoch 1, step 2"), (4, "after epoch 1")])
def test_an_interrupted_training_goes_on_from_where_it_was(step: int, found: str, attempts: Any) -> None:
    """Ctrl-C between two checkpoints leaves one more; after an epoch's last step, once that was validated."""
    expected = results(attempts("validated", "whole").run(minutes=0))
    cell = attempts("validated")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        cell.run(interrupt=step, minutes=10)
    assert signal.getsignal(signal.SIGINT) is before
    ended = cell.run(minutes=10)
    assert cell.notes == [f"going on {found}"]
    assert results(ended) == expected
    assert ended[0].cost["lost_seconds"] == 0


def test_without_checkpoints_an_interrupt_is_raised_at_once(attempts: Any) -> None:
    cell = attempts("validated")
    with pytest.raises(KeyboardInterrupt):
        cell.run(interrupt=1, minutes=0)
    assert not cell.place.exists()


def test_what_ran_beside_earlier_attempts_is_known(attempts: Any) -> None:
    cell = attempts("validated")
    assert cell.run(3) is None
    facts = {"cells": 2, "share": 0.5, "threads": 4}
    keep_beside(cell.place, facts)
    assert cell.run(5) is None
    assert cell.run()[0].cost["beside"] == facts
    other = attempts("validated", "other")
    assert other.run(3) is None
    (other.place / BESIDE).write_text('{"cells": "many"}')
    assert "beside" not in other.run()[0].cost


def test_work_after_the_last_checkpoint_is_lost_and_stands_apart(attempts: Any) -> None:
    cell = attempts("validated")
    assert cell.run(3) is None
    written = (cell.place / TRAINING).stat().st_mtime
    os.utime(cell.place / ATTEMPT, (written + 5, written + 5))  # it trained for five more seconds
    assert cell.run(4) is None
    written = (cell.place / TRAINING).stat().st_mtime
    os.utime(cell.place / ATTEMPT, (written + 2, written + 2))
    record, _ = cell.run()
    assert record.cost["lost_seconds"] == pytest.approx(7)
    assert record.cost["phases"]["train"]["seconds"] < 5


def test_a_forced_run_begins_at_the_beginning(attempts: Any) -> None:
    cell = attempts("validated")
    assert cell.run(5) is None
    record, _ = cell.run(anew=True)
    assert cell.notes == []
    assert record.cost["resumptions"] == 0
    assert record.cost["earlier_seconds"] == 0


def test_nothing_is_written_or_removed_through_a_link(attempts: Any, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("content")
    cell = attempts("validated")
    cell.place.parent.mkdir()
    cell.place.symlink_to(elsewhere)
    assert cell.run(5) is None
    assert not cell.place.is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["precious"]
    remove_checkpoints(cell.folder, BLANK.digest)
    cell.place.symlink_to(elsewhere)
    remove_checkpoints(cell.folder, BLANK.digest)
    assert not cell.place.is_symlink()
    assert (elsewhere / "precious").read_text() == "content"


@pytest.mark.parametrize("name", [TRAINING, TOKENIZER])
def test_a_damaged_checkpoint_is_named_and_not_used(name: str, attempts: Any) -> None:
    cell = attempts("generative")
    expected = results(attempts("generative", "whole").run(minutes=0))
    assert cell.run(4) is None
    path = cell.place / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert results(cell.run()) == expected
    assert cell.notes[0] == f"{path}: its checksum differs; it is not used, the work starts again"
    assert cell.notes[1:] == (["going on from the fitted tokenizer"] if name == TRAINING else [])


def test_a_checkpoint_of_another_experiment_is_named_and_not_used(attempts: Any) -> None:
    cell = attempts("validated")
    assert cell.run(5) is None
    assert cell.checkpoints(digest="u" * 16).left is None
    assert cell.notes[0].endswith(
        "tokenizer.safetensors: it is of another experiment (training digest tttttttttttttttt); it is not used, "
        "the work starts again"
    )


def test_a_cell_with_another_retriever_goes_on_from_the_same_training(attempts: Any) -> None:
    cell = attempts("dense")
    expected = results(attempts("dense", "whole").run(minutes=0))
    assert cell.run("search") is None
    other = attempts("dense")
    other.place = checkpoint_folder(other.folder, "e" * 16)
    assert results(other.run()) == expected
    assert other.notes[0].startswith("going on ")
    assert cell.place.is_dir()


def test_a_training_that_goes_on_elsewhere_says_so(attempts: Any) -> None:
    cell = attempts("validated")
    assert cell.run(5) is None
    for name in (TOKENIZER, TRAINING):
        about, content = read_file(cell.place / name, "checkpoint")
        about["machine"]["torch_threads"] = 16
        write_file(cell.place / name, "checkpoint", about, content)
    record, _ = cell.run()
    assert "it was begun with torch_threads 16" in cell.notes[0]
    assert record.cost["begun_with"] == {"torch_threads": 16}


def test_where_no_checkpoint_can_be_written_the_cell_goes_on(attempts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *rest: Any) -> None:
        raise RunError(f"{path}: cannot be written (No space left on device)")

    cell = attempts("validated")
    monkeypatch.setattr(module, "write_file", full)
    record, _ = cell.run()
    assert record.status == "ok"
    (note,) = cell.notes
    assert note.startswith("no checkpoint is written: ")
    assert note.endswith("(No space left on device); the cell goes on without")


def test_a_plug_in_whose_state_cannot_be_saved_trains_all_the_same(attempts: Any) -> None:
    cell = attempts("validated")
    (stage,) = cell.cell.method.stages
    losses = (*stage.losses, (Component("collector"), 1.0))
    cell.cell = replace(cell.cell, method=replace(cell.cell.method, stages=(replace(stage, losses=losses),)))
    record, _ = cell.run()
    assert record.status == "ok"
    (note,) = cell.notes
    assert "modules/losses.1._extra_state is a set, which a checkpoint cannot hold" in note


def test_throughput_and_phases_go_on(attempts: Any) -> None:
    cell = attempts("validated")
    assert cell.run(4) is None
    about = read_about(cell.place / TRAINING, "checkpoint")
    checkpoints, meter, throughput = cell.checkpoints(), Meter(), Throughput(torch.device("cpu"))
    checkpoints.follow(meter, throughput)
    assert meter.costs() == about["phases"]
    assert throughput.state_dict() == about["throughput"]
    assert about["total_steps"] == checkpoints.total_steps == 3
    assert about["phases"]["train"]["runs"] == about["phases"]["fit_tokenizer"]["runs"] == 1


def test_when_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, writing = [0.0], [2.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    written: list[tuple[int, int]] = []

    def write(path: Path, kind: str, about: Any, content: Any) -> None:
        now[0] += writing[0]
        if "stage" in content:
            written.append((content["stage"]["epoch"], content["stage"]["step"]))

    monkeypatch.setattr(module, "write_file", write)
    options: Any = {"minutes": 10, "device": "cpu", "anew": False, "say": print, "tell": lambda *_: None}
    checkpoints = Checkpoints(tmp_path / "c", "t", **options)
    checkpoints.follow(Meter(), Throughput(torch.device("cpu")))
    state = state_of(nn.Linear(1, 1), [], [], TrainingOptions())
    state.steps = 4

    def after(seconds: float, epoch: int, step: int) -> bool:
        now[0] += seconds
        state.epoch, state.step = epoch, step
        before = len(written)
        checkpoints(state)
        return len(written) > before

    assert not after(599, 1, 1)
    assert after(2, 1, 2)  # ten minutes
    assert not after(599, 1, 3)
    assert not after(2, 1, 4)  # the epoch's end is next
    assert after(0, 2, 0)
    assert not after(39, 3, 0)  # writing took two seconds: at most a twentieth of the time
    assert after(1, 4, 0)
    writing[0] = 0.0
    assert after(40, 5, 0)
    assert after(0, 6, 0)
    assert written == [(1, 2), (2, 0), (4, 0), (5, 0), (6, 0)]


def test_a_checkpoint_that_does_not_fit_is_of_no_use_and_the_cell_starts_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path))
    cell = cell_of("validated")
    stage = replace(cell.method.stages[0], losses=((Component("full_softmax"), 1.0),))
    trackers = (Component("jsonl", {"every_steps": 1}),)
    cell = replace(cell, method=replace(cell.method, stages=(stage,), trackers=trackers))
    job = {
        "cell": cell.to_json(),
        "blank": BLANK.to_json(),
        "source": None,
        "weights": None,
        "store": str(store.path),
        "cache": str(tmp_path),
        "device": "cpu",
        "peaks": {},
        "checkpoint_minutes": EVERY_STEP,
        "anew": False,
        "keep_weights": False,
    }
    said = io.StringIO()
    try:
        assert main({**job, "folder": str(tmp_path / "a")}, ChildMessages(said)) == 0
        place = checkpoint_folder(tmp_path / "a", BLANK.digest)  # which the parent would remove now
        about, content = read_file(place / TRAINING, "checkpoint")
        name = next(name for name, value in content["stage"]["modules"].items() if value.ndim == 2)
        content["stage"]["modules"][name] = torch.zeros(1, 1)
        write_file(checkpoint_folder(tmp_path / "b", BLANK.digest) / TRAINING, "checkpoint", about, content)
        (tmp_path / "b" / place.name / TOKENIZER).write_bytes((place / TOKENIZER).read_bytes())
        assert main({**job, "folder": str(tmp_path / "b")}, ChildMessages(said)) == 0
    finally:
        torch.set_flush_denormal(False)
    notes = [event["text"] for line in said.getvalue().splitlines() if (event := json.loads(line))["event"] == "note"]
    assert notes[0].startswith("going on ")
    assert notes[1].startswith("training.safetensors: Error(s) in loading state_dict")
    assert notes[1].endswith("; training starts again")
    first, second = (Record.from_json((tmp_path / f / f"{BLANK.digest}.json").read_text(), f) for f in "ab")
    assert first.scores == second.scores
    assert (second.cost["resumptions"], second.cost["earlier_seconds"]) == (0, 0)
    logs = [(tmp_path / folder / f"{BLANK.digest}.d/jsonl/log.jsonl").read_text().splitlines() for folder in "ab"]
    losses = [[json.loads(line).get("loss") for line in log] for log in logs]
    assert losses[0] == losses[1]
