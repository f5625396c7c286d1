"""Groups of users are recorded with the lists of a cell, searched for or scored anew, and are part of no identity."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from grbench.cli import main
from grbench.data.store import Store
from grbench.errors import SuiteError
from grbench.evaluation.scoring import empty_ranking
from grbench.hookspecs import KINDS, hookimpl
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.results.record_files import ranking_path, record_path
from grbench.results.slices import read_slices
from grbench.run.label_users import check_slices, label_users
from grbench.run.plan import make_plan
from grbench.run.prepare import split_store
from grbench.run.rescore_cell import rescore_cell
from grbench.run.run_request import RunRequest
from grbench.run.run_suite import run_suite
from grbench.suite.suite import Cell, load_suite
from grbench.testing import tiny_store

SUITE = """
suite: tiny
dataset: {{name: interactions, path: users.json}}
protocol: leave_last_out
metrics: [{metric}]
{keys}
methods:
  floor: {{encoder: most_popular}}
  other: {{encoder: most_popular, filters: [history]}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six users over seven items; the first one meets their target again."""
    place = tmp_path_factory.mktemp("place")
    users = {f"u{user}": [f"i{(user * step) % 7}" for step in range(1, 6)] for user in range(1, 6)}
    (place / "users.json").write_text(json.dumps({"u0": ["i1", "i2", "i1"], **users}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("GRBENCH_CACHE", str(place / "cache"))
        yield place


def run(keys: str = "", metric: str = "hit_rate@2", **options: Any) -> list[Record]:
    Path("suite.yaml").write_text(SUITE.format(keys=keys, metric=metric))
    out = Console(file=io.StringIO(), width=200)
    return run_suite(RunRequest(suite=Path("suite.yaml"), device="cpu", **options), out).records


def cells(keys: str = "", metric: str = "hit_rate@2") -> list[Cell]:
    Path("suite.yaml").write_text(SUITE.format(keys=keys, metric=metric))
    return load_suite("suite.yaml").cells(Registry.load())


@pytest.fixture(scope="module")
def first(place: Path) -> list[Record]:
    return run()


def test_a_run_records_the_groups_of_all_default_slices(
    place: Path, first: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place / "results" / "tiny"
    for record in first:
        found = read_slices(ranking_path(folder, record.digest))
        assert list(found) == list(KINDS["slices"].defaults)
        repeat = found["repeat"]
        assert [repeat.groups[code] for code in repeat.codes] == ["repeat", *["new"] * 5]
        assert found["gap"].codes.tolist() == [-1] * 6  # the log has no times
        assert "unlabelled" not in record.lists
    assert main(["table", "results/tiny", "--slice", "repeat", "--format", "md"]) == 0
    shown = capsys.readouterr().out
    assert "| method   |" in shown
    assert "new (5)" in shown
    assert main(["compare", "floor", "other", "--slice", "repeat", "--users", "2", "--format", "csv"]) == 0
    assert "tiny: floor against other" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table", "results/tiny", "--slice", "repeats"], "did you mean repeat?"),
        (["table", "results/tiny", "--metric", "hit_rate@3"], "hit_rate@3"),
        (["compare", "floor", "others"], "did you mean other?"),
        (["compare", "floor", "other", "--results", "nothing"], "nothing: no such file or folder"),
        (["compare", "floor", "other", "--results", "cache"], "there are no records"),
        (["compare", "floor", "other", "--users", "-1"], "--users"),
    ],
)
def test_a_wrong_request_is_one_message(
    place: Path, first: list[Record], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (place / "cache").mkdir(exist_ok=True)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err


def test_slices_are_part_of_no_identity(first: list[Record]) -> None:
    registry = Registry.load()
    Path("suite.yaml").write_text(
        SUITE.format(keys="slices: [{name: history_length, bounds: [1, 2]}]", metric="hit_rate@2")
    )
    suite = load_suite("suite.yaml")
    plan = make_plan(suite, suite.cells(registry), registry, Path("results"))
    assert [planned.blank.digest for planned in plan.cells] == [record.digest for record in first]
    assert all(planned.finished for planned in plan.cells)


def rescored(place: Path, former: Record, registry: Registry, keys: str, metric: str) -> tuple[Record, pa.Table]:
    """The first cell's record by another metric, and its lists."""
    Path("suite.yaml").write_text(SUITE.format(keys=keys, metric=metric))
    suite = load_suite("suite.yaml")
    planned = make_plan(suite, suite.cells(registry), registry, Path("results")).cells[0]
    (store,) = (place / "cache").glob("**/store.json")
    source = record_path(place / "results" / "tiny", former.digest)
    return rescore_cell(planned.cell, planned.blank, source, Store.open(store.parent), registry=registry)


def test_scoring_anew_records_the_groups_of_the_slices_that_the_suite_has_by_then(
    place: Path, first: list[Record], tmp_path: Path
) -> None:
    keys = "slices: [{name: history_length, bounds: [1, 2]}, action]"
    record, lists = rescored(place, first[0], Registry.load(), keys, "mrr@2")
    assert record.rescored_from == first[0].digest
    assert record.lists == first[0].lists
    pq.write_table(lists, tmp_path / "lists.parquet")
    found = read_slices(tmp_path / "lists.parquet")
    assert list(found) == ["history_length@1,2", "action"]
    lengths = found["history_length@1,2"]
    assert [lengths.groups[code] for code in lengths.codes] == ["2", *["3+"] * 5]
    assert not any(
        name.startswith("slice:")
        for name in rescored(place, first[0], Registry.load(), "slices: []", "mrr@1")[1].column_names
    )


class Raising:
    name = "raising"

    def __call__(self, ranking: Any) -> Any:
        raise ValueError("of no use")


class Refusing:
    name = "refusing"

    def __call__(self, ranking: Any) -> Any:
        raise SuiteError("slices: refusing: this dataset has no countries")


class Parity:
    name = "parity"

    def __call__(self, ranking: Any) -> Any:
        return np.where(ranking.users % 2, "odd", "even")


class SlicePlugins:
    @hookimpl
    def register_slices(self, register: Any) -> None:
        register("raising", Raising)
        register("refusing", Refusing)
        register("parity", Parity)


def test_a_slice_that_fails_costs_its_own_groups_alone(place: Path, first: list[Record], tmp_path: Path) -> None:
    registry = Registry.load()
    registry.add("slices", "slices", "1", SlicePlugins)
    users = [[(1, 0, 0), (2, 0, 1), (3, 0, 2)]] * 3
    store = tiny_store(tmp_path, users, num_items=3)
    Path("suite.yaml").write_text(SUITE.format(keys="slices: [raising, parity, refusing]", metric="hit_rate@2"))
    cell = load_suite("suite.yaml").cells(registry)[0]
    split = split_store(store, cell.protocol, registry)
    found, failed = label_users(cell.slices, empty_ranking(split, 2), registry)
    assert list(found) == ["parity"]
    assert failed == {"raising": "ValueError: of no use", "refusing": "slices: refusing: this dataset has no countries"}
    with pytest.raises(SuiteError, match="this dataset has no countries"):
        check_slices(cell.slices, split, registry)  # said before anything is trained
    assert Component("parity") in cell.slices


def test_a_record_says_which_slice_failed_and_why(place: Path, first: list[Record]) -> None:
    registry = Registry.load()
    registry.add("slices", "slices", "1", SlicePlugins)
    record, lists = rescored(place, first[0], registry, "slices: [raising, parity]", "mrr@2")
    assert record.lists == {**first[0].lists, "unlabelled": {"raising": "ValueError: of no use"}}
    assert [name for name in lists.column_names if name.startswith("slice:")] == ["slice:parity"]
    assert Record.from_json(record.to_json(), "x").lists == record.lists


def test_a_cell_keeps_its_slices_on_the_way_to_its_process(place: Path) -> None:
    cell = cells("slices: [{name: gap, bounds: [1h, 2d]}]")[0]
    assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell
    assert ("slices", "gap") in cell.plugins()
