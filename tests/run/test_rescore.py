"""`grbench rescore`: further metrics of finished records from their kept lists, in place."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scored_world import METRICS, plan, run_world, write_world

from grbench.cli import main
from grbench.errors import DataError, GRBenchError, RunError, SuiteError
from grbench.registry.component import Component
from grbench.report.table import tables
from grbench.results.integrity import altered_lists
from grbench.results.lists import read_lists
from grbench.results.record import Record
from grbench.results.record_files import latest, ranking_path, read_records, record_path, write_record
from grbench.results.slices import read_slices
from grbench.results.values import read_values
from grbench.run.places import as_planned
from grbench.run.plan import covers
from grbench.run.progress import PlainProgress
from grbench.run.rescore import FurtherMetrics, Rescored, RescoreRequest, rescore, why_not

MORE = "[hit_rate@2, ndcg@2, novelty@2, coverage@4]"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, a suite and its results; tests work on copies."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("GRBENCH_CACHE", str(place / "cache"))
        write_world(place)
        run_world()
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "place" / "cache"))
    return tmp_path / "place"


def rescored(*metrics: str, results: str = "results", overrides: tuple[str, ...] = ()) -> Rescored:
    return rescore(RescoreRequest([Path(results)], metrics, overrides), PlainProgress(io.StringIO()))


def records(results: str = "results") -> list[Record]:
    return read_records([Path(results)])


def test_records_get_the_metrics_that_a_run_with_them_gives(place: Path) -> None:
    before = records()
    log = record_path(Path("results/tiny"), before[0].digest).with_suffix(".log")
    log.write_text("what the cell printed")
    outcome = rescored("novelty@2", "coverage@4")
    assert (len(outcome.records), outcome.already, outcome.refused) == (4, 0, [])
    after = records()
    assert (
        len(after)
        == len(list(Path("results/tiny").glob("*.json")))
        == len(list(Path("results/tiny").glob("*.parquet")))
    )
    write_world(place, MORE)
    directly = run_world(Path("directly"))
    for former, record, direct in zip(before, after, directly, strict=True):
        assert record.digest == direct.digest != former.digest
        assert record.scores == direct.scores
        assert (record.identity, record.metrics) == (direct.identity, direct.metrics)
        assert (record.cost, record.rescored_from, record.lists) == (former.cost, None, former.lists)
        _, values = read_values(ranking_path(Path("results/tiny"), record.digest), list(record.metrics)) or ([], {})
        assert {name: np.mean(each) for name, each in values.items()} == pytest.approx(record.scores)
        _, theirs = read_values(ranking_path(Path("directly/tiny"), direct.digest), list(record.metrics)) or ([], {})
        np.testing.assert_equal(values, theirs)
    assert log.with_stem(after[0].digest).read_text() == "what the cell printed"
    assert not log.exists()


def test_a_run_with_the_edited_metrics_finds_everything_done(place: Path) -> None:
    rescored("novelty@2", "coverage@4")
    for metrics in (MORE, METRICS, "[coverage@4, ndcg@2]"):  # as they are now, as they were, some in another order
        write_world(place, metrics)
        planned = plan()
        assert "2 methods x 2 seeds = 4 cells: 4 done, 0 to do" in planned.text()
        shown = [as_planned(cell, cell.former) for cell in planned.cells if cell.former]
        assert [list(record.scores) for record in shown] == [metrics[1:-1].split(", ")] * 4
        assert [list(record.metrics) for record in shown] == [metrics[1:-1].split(", ")] * 4
        assert all(cell.former and cell.former.digest in planned.text() for cell in planned.cells)
    write_world(place, "[coverage@4, mrr@2]")
    assert "0 done, 4 to re-score, 0 to do" in plan().text()


def test_tables_show_the_new_column(place: Path) -> None:
    first = records()[0]
    rescored("novelty@2", results=f"results/tiny/{first.digest}.json")
    (table,) = tables(latest(records()))
    assert [column.metric for column in table.columns][1:4] == ["hit_rate@2", "ndcg@2", "novelty@2"]
    # One seed of the row has it, so that the mean would be over other seeds than the other columns' are.
    assert [row[3].text for row in table.rows] == ["—", "—"]
    rescored("novelty@2")
    (table,) = tables(latest(records()))
    assert all(row[3].text != "—" and row[1].text != "—" for row in table.rows)
    assert [row[-1].text for row in table.rows] == ["2", "2"]


def test_records_get_the_groups_that_a_run_with_the_slice_gives(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("results/tiny")
    before = records()
    there = [read_slices(ranking_path(folder, record.digest)) for record in before]
    assert set(there[0]) >= {"history_length", "repeat"}
    for record in before:
        lists = read_lists(ranking_path(folder, record.digest))
        without = lists.drop_columns([name for name in lists.column_names if name.startswith("slice:")])
        write_record(folder, record, without)
    assert main(["rescore", "results", "--slice", "history_length", "--slice", "repeat"]) == 0
    assert "groups by history_length, repeat" in capsys.readouterr().out
    after = records()
    assert [record.digest for record in after] == [record.digest for record in before]
    assert [record.scores for record in after] == [record.scores for record in before]
    for record, groups in zip(after, there, strict=True):
        found = read_slices(ranking_path(folder, record.digest))
        assert set(found) == {"history_length", "repeat"}
        for name, grouping in found.items():
            np.testing.assert_array_equal(grouping.codes, groups[name].codes)
            assert grouping.groups == groups[name].groups
        assert altered_lists(record) is None


def test_a_slice_that_is_none_and_a_request_for_nothing_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rescore", "results", "--slice", "histry_length"]) == 2
    assert "histry_length" in capsys.readouterr().err
    assert main(["rescore", "results"]) == 2
    assert "--metric or --slice" in capsys.readouterr().err


def test_what_is_there_is_not_computed_again(place: Path) -> None:
    rescored("novelty@2")
    before = {file.name: file.read_bytes() for file in Path("results/tiny").iterdir()}
    outcome = rescored("novelty@2", "hit_rate@2")
    assert (outcome.already, outcome.refused) == (4, [])
    assert {file.name: file.read_bytes() for file in Path("results/tiny").iterdir()} == before


def test_a_metric_of_another_version_is_computed_again(place: Path) -> None:
    for record in records():
        metrics = {**record.metrics, "ndcg@2": {"higher_is_better": True, "version": "older"}}
        lists = read_lists(ranking_path(Path("results/tiny"), record.digest))
        write_record(Path("results/tiny"), dataclasses.replace(record, metrics=metrics, scores={"ndcg@2": 9.0}), lists)
    rescored("ndcg@2")
    write_world(place)
    assert {cell.former.digest for cell in plan().cells if cell.former} == {record.digest for record in records()}
    assert all(record.scores["ndcg@2"] <= 1 and len(record.metrics) == 2 for record in records())


def test_a_cutoff_beyond_the_kept_lists_is_refused_with_the_longest_possible(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_ = records()
    shorter = dataclasses.replace(first, lists={**first.lists, "kept": None})
    write_record(Path("results/tiny"), shorter, read_lists(ranking_path(Path("results/tiny"), first.digest)))
    assert main(["rescore", "results", "--metric", "mrr@4"]) == 1
    shown = capsys.readouterr()
    assert "3 records have them now" in shown.out
    assert (
        "not scored: popular, seed 0: mrr@4 needs lists of 4, and the longest kept ones have 2; use k up to 2"
        in shown.err
    )
    assert [("mrr@4" in record.scores) for record in records()] == [False, True, True, True]
    assert main(["rescore", "results", "--metric", "mrr@5"]) == 2
    assert "unseen, seed 1: mrr@5 needs lists of 5, and the longest kept ones have 4" in capsys.readouterr().err


def test_data_that_moved_are_given_and_data_that_changed_are_refused(place: Path) -> None:
    Path("users.json").rename("elsewhere.json")
    before = records()
    with pytest.raises(RunError, match=r"4 records of tiny: .*users\.json.*give --set dataset\.path=PATH"):
        rescored("mrr@2")
    assert records() == before
    assert len(rescored("mrr@2", overrides=("dataset.path=elsewhere.json",)).records) == 4
    content = json.loads(Path("elsewhere.json").read_text())
    Path("elsewhere.json").write_text(json.dumps({**content, "u1": content["u2"]}))
    with pytest.raises(RunError, match="its content is not what these records are of"):
        rescored("mrr@1", overrides=("dataset.path=elsewhere.json",))


def test_a_record_that_cannot_be_scored_keeps_nobody_from_it(place: Path) -> None:
    first, second, *_ = records()
    ranking_path(Path("results/tiny"), first.digest).write_bytes(b"PAR1")
    ranking_path(Path("results/tiny"), second.digest).unlink()
    outcome = rescored("mrr@2")
    assert len(outcome.records) == 2
    assert [line.partition(": ")[0] for line in outcome.refused] == ["popular, seed 0", "popular, seed 1"]
    assert "the lists were altered" in outcome.refused[0]
    assert "its lists are gone" in outcome.refused[1]
    assert [record for record in records() if record.method == "popular"] == [first, second]


@pytest.mark.parametrize(
    ("metrics", "overrides", "said", "kind"),
    [
        (["ndgc@2"], (), "--metric ndgc@2: unknown metric 'ndgc'; did you mean ndcg?", GRBenchError),
        (["ndcg@0"], (), "--metric ndcg@0: ndcg@0: should be a metric's name and one cutoff", SuiteError),
        (["ndcg"], (), "--metric ndcg.k: must be given", SuiteError),
        (["{name: ndcg"], (), "--metric {name: ndcg:1: ", SuiteError),
        (["mrr@2", "mrr@2"], (), "--metric mrr@2: is given twice", SuiteError),
        (["mrr@2"], ("protocol.seed=1",), "should be dataset.KEY=VALUE", SuiteError),
        (["diversity@2"], (), "items have no features; compare them by: cooccurrence", RunError),
    ],
)
def test_a_wrong_request_changes_nothing(
    place: Path, metrics: list[str], overrides: tuple[str, ...], said: str, kind: type[GRBenchError]
) -> None:
    before = records()
    with pytest.raises(kind) as raised:
        rescored(*metrics, overrides=overrides)
    assert said in str(raised.value)
    assert records() == before


def test_without_records_there_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no finished record"):
        rescored("mrr@2", results=str(tmp_path))
    with pytest.raises((RunError, DataError), match="no such file or folder"):
        rescored("mrr@2", results=str(tmp_path / "nowhere"))


def a_record(*metrics: tuple[str, int | None]) -> Record:
    """One with these metrics, a name and a cutoff each, and lists of 2 and of 5."""
    return Record(
        "d",
        "s",
        "m",
        0,
        "ok",
        identity={"training": {}, "ranking": {}, "metrics": [{"name": n, "options": {"k": k}} for n, k in metrics]},
        metrics={f"{n}@{k}": {"version": "1"} for n, k in metrics},
        scores={f"{n}@{k}": 0.5 for n, k in metrics},
        lists={"scored": 2, "kept": 5},
        folder=Path(),
    )


def test_a_metric_without_a_cutoff_depends_on_the_longest_one(tmp_path: Path) -> None:
    whole, longer = a_record(("a", None), ("b", 2)), a_record(("b", 2), ("c", 5), ("a", None))
    assert covers(longer, a_record(("c", 5), ("b", 2)))
    assert covers(longer, a_record(("a", None), ("c", 5)))
    assert not covers(longer, whole)  # `a` was computed from lists of 5, not of 2
    assert not covers(whole, longer)
    record = dataclasses.replace(whole, folder=tmp_path)
    write_record(tmp_path, record)

    def more(k: int) -> FurtherMetrics:
        name = f"c@{k}"
        return FurtherMetrics(
            (Component("c", {"k": k}),), {name: {"version": "1"}}, [{"name": "c", "options": {"k": k}}]
        )

    assert why_not(record, more(1)) is None
    assert "a@None has no cutoff" in (why_not(record, more(5)) or "")
