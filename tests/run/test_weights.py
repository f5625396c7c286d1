"""A model that was kept ranks as it did when it had just been trained; one that is damaged or another's is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from attempts import BLANK, Attempts, cell_of, registry_of_attempts, results, store_of_attempts

from grbench.checkpoint.file import read_file, write_file
from grbench.data.store import Store
from grbench.errors import RunError
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.checksums import file_checksum
from grbench.results.kept_weights import with_kept_weights
from grbench.results.record import Record
from grbench.results.record_files import (
    read_record,
    record_path,
    remove_other_weights,
    weights_path,
    write_record,
)
from grbench.results.verify import verify_record
from grbench.run.backends.child_process import ChildMessages
from grbench.run.reporter import Reporter
from grbench.run.run_cell import run_cell
from grbench.suite.suite import Cell


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
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


def kept(name: str, folder: Path, store: Store, registry: Registry) -> tuple[Cell, Record]:
    """A cell that was trained with its weights kept, and its record, on disk in the folder."""
    cell = cell_of(name)
    attempt = Attempts(cell, folder, store, registry)
    ended = attempt.run(minutes=0, keep=folder)
    assert ended is not None
    write_record(folder, *ended)
    return cell, ended[0]


def file_of(folder: Path) -> Path:
    """The only file of weights in the folder."""
    (path,) = folder.glob(f"{BLANK.digest}.weights.*")
    return path


def ranked(cell: Cell, folder: Path, store: Store, registry: Registry, digest: str = "e" * 16) -> tuple[Record, Any]:
    """The cell ranked from the weights in the folder."""
    blank, report = replace(BLANK, digest=digest), Reporter(ChildMessages(io.StringIO()), [])
    source = record_path(folder, BLANK.digest)
    return run_cell(cell, blank, store, registry=registry, device="cpu", report=report, source=source)


@pytest.mark.parametrize("name", ["dense", "validated", "generative", "learnt codes", "averaging"])
def test_other_retrievers_and_longer_lists_are_ranked_as_by_a_model_that_was_just_trained(
    name: str, tmp_path: Path, store: Store, registry: Registry
) -> None:
    cell, first = kept(name, tmp_path / "kept", store, registry)
    retriever = cell.method.retriever
    if retriever.name == "beam":
        retriever = Component("beam", {"width": 2})
    metrics = (*cell.metrics, Component("hit_rate", {"k": 5}))
    cell = replace(cell, metrics=metrics, method=replace(cell.method, retriever=retriever))
    trained = Attempts(cell, tmp_path / "trained", store, registry).run(minutes=0)
    again = ranked(cell, tmp_path / "kept", store, registry)
    assert results(again) == results(trained)
    record = again[0]
    assert record.weights_from == BLANK.digest
    assert record.weights == {}
    assert record.cost["phases"]["train"] == first.cost["phases"]["train"]
    assert record.cost["train_seconds"] == first.cost["train_seconds"]
    assert record.cost["train_users_per_second"] == first.cost["train_users_per_second"]
    assert record.cost["peak_process_bytes"] >= first.cost["phases"]["train"]["peak_process_bytes"]
    before = {"prepare", "index", "search"}
    earlier = sum(phase["seconds"] for key, phase in first.cost["phases"].items() if key not in before)
    assert record.cost["earlier_seconds"] == pytest.approx(earlier)
    assert "begun_with" not in record.cost


def test_a_cell_whose_lists_are_gone_keeps_its_weights(tmp_path: Path, store: Store, registry: Registry) -> None:
    cell, first = kept("dense", tmp_path, store, registry)
    assert first.weights == {
        "bytes": file_of(tmp_path).stat().st_size,
        "sha256": file_checksum(file_of(tmp_path)),
    }
    again = ranked(cell, tmp_path, store, registry, BLANK.digest)
    assert again[0].weights == first.weights
    assert again[0].scores == first.scores
    assert isinstance(again[1], pa.Table)


def test_weights_of_another_machine_say_so(tmp_path: Path, store: Store, registry: Registry) -> None:
    cell, first = kept("dense", tmp_path, store, registry)
    elsewhere = replace(first, environment=first.environment | {"cpu": "another"})
    record_path(tmp_path, BLANK.digest).write_text(elsewhere.to_json())
    assert ranked(cell, tmp_path, store, registry)[0].cost["begun_with"] == {"cpu": "another"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "not those that its record speaks of"),
        (lambda content: content[:100], "not those that its record speaks of"),
    ],
)
def test_damaged_weights_are_refused(damage: Any, said: str, tmp_path: Path, store: Store, registry: Registry) -> None:
    cell, _ = kept("dense", tmp_path, store, registry)
    path = file_of(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError) as raised:
        ranked(cell, tmp_path, store, registry)
    message = str(raised.value)
    assert message.startswith(f"{path}: the weights")
    assert said in message
    assert message.endswith("remove it, so that the cell is trained again")
    assert "\n" not in message


def test_weights_that_are_gone_are_named(tmp_path: Path, store: Store, registry: Registry) -> None:
    cell, _ = kept("dense", tmp_path, store, registry)
    file_of(tmp_path).unlink()
    with pytest.raises(RunError, match="the weights are gone; run the same command again, and the cell is trained"):
        ranked(cell, tmp_path, store, registry)


def narrower(encoder: dict[str, Any], name: str) -> None:
    encoder[name] = encoder[name][:-1]


def of_another_type(encoder: dict[str, Any], name: str) -> None:
    encoder[name] = encoder[name].double()


def renamed(encoder: dict[str, Any], name: str) -> None:
    encoder["other"] = encoder.pop(name)


def one_more(encoder: dict[str, Any], name: str) -> None:
    encoder["other"] = encoder[name]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (narrower, "{name} is [{less}, {wide}] float32, and the encoder's is [{rows}, {wide}] float32"),
        (of_another_type, "{name} is [{rows}, {wide}] float64, and the encoder's is [{rows}, {wide}] float32"),
        (renamed, "{name} is missing"),
        (one_more, "the encoder has no other"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: Any, said: str, tmp_path: Path, store: Store, registry: Registry
) -> None:
    cell, first = kept("dense", tmp_path, store, registry)
    path = file_of(tmp_path)
    about, content = read_file(path, "weights")
    name, (rows, wide) = next((name, value.shape) for name, value in content["encoder"].items() if value.ndim == 2)
    said = said.format(name=name, rows=rows, less=rows - 1, wide=wide)
    change(content["encoder"], name)
    write_file(path, "weights", about, content)
    facts = {"bytes": path.stat().st_size, "sha256": file_checksum(path)}
    record_path(tmp_path, BLANK.digest).write_text(replace(first, weights=facts).to_json())
    with pytest.raises(RunError) as raised:
        ranked(cell, tmp_path, store, registry)
    assert f"the weights cannot be used ({said}); remove it" in str(raised.value)


def test_a_cell_that_fails_when_it_is_ranked_from_its_own_weights_keeps_them(
    tmp_path: Path, store: Store, registry: Registry
) -> None:
    cell, first = kept("dense", tmp_path, store, registry)
    error = {"type": "E", "message": "no", "traceback": ""}
    write_record(tmp_path, with_kept_weights(tmp_path, replace(BLANK, status="oom", error=error)))
    failed = read_record(record_path(tmp_path, BLANK.digest))
    assert (failed.status, failed.error, failed.scores) == ("oom", error, {})
    assert weights_path(tmp_path, failed) == file_of(tmp_path)
    again, lists = ranked(cell, tmp_path, store, registry, BLANK.digest)
    assert (again.scores, again.curve, again.weights) == (first.scores, first.curve, first.weights)
    assert again.cost["phases"]["train"] == first.cost["phases"]["train"]
    write_record(tmp_path, again, lists)
    assert verify_record(record_path(tmp_path, BLANK.digest)).problems == []


def test_a_failed_cell_takes_over_no_weights_of_another_training(
    tmp_path: Path, store: Store, registry: Registry
) -> None:
    kept("dense", tmp_path, store, registry)
    failed = replace(BLANK, training_digest="u" * 16)
    assert with_kept_weights(tmp_path, failed) is failed


def test_new_weights_leave_those_of_a_record_until_theirs_is_written(
    tmp_path: Path, store: Store, registry: Registry
) -> None:
    """As where a run with --force --keep weights is interrupted between the two."""
    cell, _ = kept("dense", tmp_path, store, registry)
    before = file_of(tmp_path)
    forced = Attempts(replace(cell, seed=cell.seed + 1), tmp_path, store, registry).run(minutes=0, keep=tmp_path)
    assert forced is not None
    assert len(list(tmp_path.glob("*.weights.*"))) == 2
    assert verify_record(record_path(tmp_path, BLANK.digest)).problems == []
    ranked(cell, tmp_path, store, registry)
    write_record(tmp_path, *forced)
    remove_other_weights(tmp_path, forced[0])
    assert file_of(tmp_path) != before
    assert verify_record(record_path(tmp_path, BLANK.digest)).problems == []


def test_weights_of_another_training_are_refused(tmp_path: Path, store: Store, registry: Registry) -> None:
    cell, first = kept("dense", tmp_path, store, registry)
    other = replace(first, training_digest="u" * 16)
    record_path(tmp_path, BLANK.digest).write_text(other.to_json())
    with pytest.raises(RunError, match="the weights are of another experiment"):
        ranked(cell, tmp_path, store, registry)
