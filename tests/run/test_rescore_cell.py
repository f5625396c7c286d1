"""Metrics added to a suite that has run: nothing is trained, nothing is searched for, and the scores are the same."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from grbench import hookimpl
from grbench.registry.discovery import Registry
from grbench.results.lists import read_lists
from grbench.results.record import Record
from grbench.results.record_files import ranking_path, read_record, record_path, write_record
from grbench.results.values import read_values, with_values
from grbench.run.backends.child_process import ChildMessages
from grbench.run.plan import PlannedCell, make_plan
from grbench.run.reporter import Reporter
from grbench.run.rescore_cell import rescore_cell
from grbench.run.run_cell import run_cell
from grbench.run.run_request import RunRequest
from grbench.run.run_suite import run_suite
from grbench.suite.suite import load_suite
from grbench.testing import tiny_store
from grbench.types import Batch, Codes, TopK

SUITE = """
suite: tiny
dataset: {{name: interactions, path: users.json}}
protocol: leave_last_out
metrics: {metrics}
{keys}
methods:
  trained:
    encoder: {{name: causal_transformer, width: 4, blocks: 1, heads: 1}}
    loss: full_softmax
    training: {{epochs: 1, batch_size: 4, workers: 0}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with six users over seven items, whose suite has run with two metrics and lists of six kept."""
    place = tmp_path_factory.mktemp("place")
    users = {f"u{user}": [f"i{(user * step) % 7}" for step in range(1, 6)] for user in range(1, 7)}
    (place / "users.json").write_text(json.dumps(users))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("GRBENCH_CACHE", str(place / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield place


@pytest.fixture(scope="module")
def first(place: Path) -> Record:
    return run("[hit_rate@2, ndcg@2]", "keep_lists: 6")[0]


def run(metrics: str, keys: str = "", **options: Any) -> tuple[Record, str]:
    Path("suite.yaml").write_text(SUITE.format(metrics=metrics, keys=keys))
    out = io.StringIO()
    outcome = run_suite(RunRequest(suite=Path("suite.yaml"), device="cpu", **options), Console(file=out, width=200))
    (record,) = outcome.records or [None]
    return record, out.getvalue()


def plan(metrics: str, results: Path = Path("results"), **options: Any) -> str:
    Path("suite.yaml").write_text(SUITE.format(metrics=metrics, keys=""))
    suite, registry = load_suite("suite.yaml"), Registry.load()
    return make_plan(suite, suite.cells(registry), registry, results, **options).text()


def test_longer_lists_are_kept_beside_the_scored_ones_and_change_no_score(place: Path, first: Record) -> None:
    assert first.lists == {"scored": 2, "shortest": 2, "kept": 6, "kept_shortest": 6}
    assert "keep" in first.cost["phases"]
    table = read_lists(ranking_path(place / "results" / "tiny", first.digest))
    assert {len(row) for row in table["items"].to_pylist()} == {2}
    assert {len(row) for row in table["kept_items"].to_pylist()} == {6}
    without, _ = run("[hit_rate@2, ndcg@2]", results=Path("others"))
    assert (without.digest, without.scores) == (first.digest, first.scores)
    assert without.lists == {"scored": 2, "shortest": 2, "kept": None}
    assert "keep" not in without.cost["phases"]


@pytest.mark.parametrize(
    "metrics",
    [
        pytest.param("[hit_rate@2, ndcg@2, mrr@2]", marks=pytest.mark.slow),  # more metrics
        "[coverage@1]",  # other ones, of shorter lists than were scored
        "[hit_rate@2, ndcg@5, coverage@6]",  # cutoffs within the kept lists
    ],
)
def test_metrics_are_computed_from_the_lists(place: Path, first: Record, metrics: str) -> None:
    record, said = run(metrics)
    assert "0 done, 1 to re-score, 0 to do" in said
    assert " re-score " in said
    assert record.status == "ok"
    assert record.rescored_from == first.digest != record.digest
    assert (record.training_digest, record.lists_digest) == (first.training_digest, first.lists_digest)
    for name in ("lists", "pool", "counts", "cost", "environment", "tokenizer", "curve"):
        assert getattr(record, name) == getattr(first, name), name
    folder = place / "results" / "tiny"
    again, former = (read_lists(ranking_path(folder, each.digest)) for each in (record, first))
    assert with_values(again, {}).equals(with_values(former, {}))
    for metric, value in record.scores.items():
        users, values = read_values(ranking_path(folder, record.digest), [metric]) or ([], {metric: np.zeros(0)})
        assert [*users] == again["user"].to_pylist()
        assert np.mean(values[metric]) == pytest.approx(value)
    assert not (folder / f"{record.digest}.d").exists()
    directly, _ = run(metrics, results=Path("directly"), force=True)
    assert directly.rescored_from is None
    assert (directly.digest, directly.scores) == (record.digest, record.scores)
    assert "1 done, 0 to do" in plan(metrics)


def test_a_cutoff_beyond_the_kept_lists_is_run(first: Record) -> None:
    assert "0 done, 1 to do" in plan("[hit_rate@7]")


class Reversing:
    """Finds other items in longer searches: the k first candidates, the last of them best."""

    needs: ClassVar[tuple[type, ...]] = ()

    def index(self, encoder: Any, candidates: Tensor, codes: Codes) -> None:
        self.candidates = candidates

    def search(self, encoder: Any, batch: Batch, k: int) -> TopK:
        items = self.candidates[:k].flip(0).expand(len(batch.users), -1)
        return TopK(items, torch.arange(k, 0, -1.0).expand_as(items))


class ReversingPlugin:
    @hookimpl
    def register_retrievers(self, register: Any) -> None:
        register("reversing", Reversing)


REVERSED = """
suite: reversed
dataset: {{name: interactions, path: users.json}}
protocol: leave_last_out
metrics: {metrics}
keep_lists: {keep}
methods:
  reversing: {{encoder: most_popular, retriever: reversing}}
"""


def test_metrics_are_computed_from_lists_of_the_length_that_a_search_for_them_has(place: Path) -> None:
    registry = Registry.load()
    registry.add("reversing", "reversing", "1", ReversingPlugin)
    users = {"a": ["i0", "i1", "i2"], "b": ["i1", "i3", "i4"], "c": ["i5", "i6", "i0"]}
    store = tiny_store(place / "reversed", [[(1, 0, 0), (2, 0, 1), (3, 0, 2)]] * 3, num_items=7)
    (place / "users_reversed.json").write_text(json.dumps(users))
    results = place / "reversed_results"

    def planned(metrics: str, keep: str = "null") -> PlannedCell:
        text = REVERSED.format(metrics=metrics, keep=keep).replace("users.json", "users_reversed.json")
        Path("reversed.yaml").write_text(text)
        suite = load_suite("reversed.yaml")
        (cell,) = make_plan(suite, suite.cells(registry), registry, results).cells
        return cell

    def searched(metrics: str, finished: str, keep: str = "null") -> Record:
        each = planned(metrics, keep)
        report = Reporter(ChildMessages(io.StringIO()), [])
        record, lists = run_cell(each.cell, each.blank, store, registry=registry, device="cpu", report=report)
        record = dataclasses.replace(record, finished=finished)
        write_record(results / "reversed", record, lists)
        return record

    def source(metrics: str) -> Record:
        found = planned(metrics).source
        assert found is not None
        return found

    # Every target is item 3. A search finds one more than the cutoff, to see a tie: 3 2 1 for @2, and 5 4 3 2 1 for @4.
    two = searched("[hit_rate@1, ndcg@2]", "2026-01-01")
    four = searched("[hit_rate@1, ndcg@4]", "2026-01-02")
    kept = searched("[hit_rate@1]", "2026-01-03", keep="6")
    assert [each.lists["scored"] for each in (two, four, kept)] == [2, 4, 1]
    assert [each.scores["hit_rate@1"] for each in (two, four)] == [1.0, 0.0]
    assert source("[hit_rate@1, mrr@2]").digest == two.digest
    assert source("[hit_rate@1, mrr@3]").digest == four.digest
    assert source("[mrr@1]").digest == kept.digest
    assert source("[mrr@6]").digest == kept.digest
    each = planned("[hit_rate@1, mrr@2]")
    record, _ = rescore_cell(
        each.cell, each.blank, record_path(results / "reversed", two.digest), store, registry=registry
    )
    assert record.scores == {"hit_rate@1": 1.0, "mrr@2": 1.0}


def test_what_is_scored_anew_can_be_scored_anew(first: Record) -> None:
    run("[mrr@2]")
    record, _ = run("[mrr@2, mrr@4]")
    assert record.rescored_from == first.digest  # and not the record in between: its lists were never searched for


@pytest.mark.parametrize("change", [{}, {"status": "error"}, {"lists_digest": "another"}])
def test_only_a_finished_record_of_the_same_lists_will_do(place: Path, first: Record, change: dict[str, Any]) -> None:
    folder = place / "-".join(["changed", *change]) / "tiny"
    lists = read_lists(ranking_path(place / "results" / "tiny", first.digest))
    write_record(folder, dataclasses.replace(first, **change), lists)
    assert ("1 to re-score" in plan("[hit_rate@1]", folder.parent)) == (not change)


def test_without_its_lists_or_when_forced_a_cell_is_run(place: Path, first: Record) -> None:
    folder = place / "bare" / "tiny"
    write_record(folder, first)
    assert "0 done, 1 to do" in plan("[hit_rate@1]", folder.parent)
    assert "0 done, 1 to do" in plan("[hit_rate@1]", force=True)


def test_lists_that_cannot_be_read_are_named_in_the_record(place: Path, first: Record) -> None:
    folder = place / "damaged" / "tiny"
    write_record(folder, first)
    ranking_path(folder, first.digest).write_bytes(b"PAR1")
    record, _ = run("[hit_rate@1]", results=folder.parent)
    assert (record.status, (record.error or {})["type"]) == ("error", "RunError")
    assert f"{first.digest}.parquet: the lists cannot be read" in (record.error or {})["message"]
    assert read_record(record_path(folder, first.digest)) == first


def test_a_record_of_an_older_identity_is_shown_and_not_done(place: Path, first: Record) -> None:
    folder = place / "older" / "tiny"
    older = dataclasses.replace(first, digest="0" * 16, identity={"seed": 0}, lists_digest="", training_digest="")
    write_record(folder, older)
    text = plan("[hit_rate@2, ndcg@2]", folder.parent)
    assert "0 done, 1 to do" in text
    assert "to do (there is one of an older identity)" in text
