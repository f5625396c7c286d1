"""`grbench score` and `grbench export`: rankings from elsewhere, and lists for elsewhere."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
import pytrec_eval
from scored_world import plan, run_world, write_world

from grbench.cli import main
from grbench.errors import RunError
from grbench.report.render import render
from grbench.report.table import tables
from grbench.results.lists import read_lists
from grbench.results.record import Record
from grbench.results.record_files import latest, ranking_path, read_records
from grbench.results.values import read_values
from grbench.run.progress import PlainProgress
from grbench.run.score_file import ScoreRequest, score_file

RESULTS = Path("results/tiny")
METRICS = "[hit_rate@2, ndcg@2, coverage@2, novelty@2]"


@pytest.fixture(scope="module", params=[True, False], ids=["text", "numbers"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of ids that are text or whole numbers, a suite, and its results."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("GRBENCH_CACHE", str(place / "cache"))
        write_world(place, METRICS, text=request.param)
        run_world()
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "place" / "cache"))
    return tmp_path / "place"


def scored(lists: str, name: str = "theirs", **options: object) -> Record:
    request = ScoreRequest(Path(lists), "suite.yaml", name, **options)  # type: ignore[arg-type]
    return score_file(request, PlainProgress(io.StringIO()))


def record_of(method: str, seed: int = 0) -> Record:
    return next(each for each in read_records([RESULTS]) if (each.method, each.seed) == (method, seed))


def values_of(record: Record) -> dict[str, np.ndarray]:
    return (read_values(ranking_path(RESULTS, record.digest), list(record.metrics)) or ([], {}))[1]


@pytest.mark.parametrize("name", ["a.parquet", "a.trec", "a.json", "a.csv", "a.tsv"])
@pytest.mark.parametrize(("method", "kept"), [("popular", []), ("popular", ["--kept"]), ("unseen", [])])
def test_what_is_exported_scores_as_it_did(place: Path, method: str, name: str, kept: list[str]) -> None:
    assert main(["export", "results", "--method", method, "--seed", "1", "--out", name, *kept]) == 0
    ours = record_of(method, 1)
    record = scored(name, filters=["history"] if method == "unseen" else None)
    assert record.scores == ours.scores
    np.testing.assert_equal(values_of(record), values_of(ours))
    assert 0 < ours.scores["ndcg@2"] < 1
    lists, theirs = (read_lists(ranking_path(RESULTS, each.digest)) for each in (ours, record))
    assert lists.select(["user", "items", "scores", "targets", "ranks"]).equals(
        theirs.select(["user", "items", "scores", "targets", "ranks"])
    )
    assert (record.pool, record.dataset, record.protocol) == (ours.pool, ours.dataset, ours.protocol)
    assert record.counts["unreachable"] == ours.counts["unreachable"]


def test_there_are_lists_whose_last_tie_goes_on_beyond_them(place: Path) -> None:
    main(["export", "results", "--method", "popular", "--seed", "0", "--out", "a.parquet"])
    assert 0 < sum(pq.read_table("a.parquet")["tied_beyond"].to_pylist()) < 12


def test_a_file_of_lists_beside_a_record_can_be_scored(place: Path) -> None:
    assert scored(str(ranking_path(RESULTS, record_of("popular").digest))).external["format"] == "parquet"


def test_trec_files_are_judged_alike_by_an_independent_implementation(place: Path) -> None:
    """Scores in the place of places, so that nothing is tied."""
    main(["export", "results", "--method", "popular", "--seed", "0", "--out", "a.trec", "--qrels", "a.qrels"])
    lines = [line.split(" ") for line in Path("a.trec").read_text().splitlines()]
    strict = [[*line[:4], str(-int(line[3])), "x"] for line in lines]
    Path("b.run").write_text("".join("\t ".join(line) + "\r\n" for line in reversed(strict)))
    relevant, shown = {}, {}
    for user, _, item, relevance in (line.split(" ") for line in Path("a.qrels").read_text().splitlines()):
        relevant.setdefault(user, {})[item] = int(relevance)
    for user, _, item, _, score, _ in strict:
        shown.setdefault(user, {})[item] = float(score)
    judged = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.2", "recall.2"}).evaluate(shown)
    record = scored("b.run")
    users = read_lists(ranking_path(RESULTS, record.digest))["user"].to_pylist()
    ours = values_of(record)
    assert len(judged) == len(users) == 12
    for name, theirs in (("ndcg@2", "ndcg_cut_2"), ("hit_rate@2", "recall_2")):
        assert ours[name] == pytest.approx([judged[str(user)][theirs] for user in users])
        assert ours[name].any()


def some_lists() -> tuple[list[object], list[list[object]]]:
    table = read_lists(ranking_path(RESULTS, record_of("popular").digest))
    return table["user"].to_pylist(), table["kept_items"].to_pylist()


def write(users: list[object], lists: list[list[object]], scores: list[list[object]] | None = None) -> None:
    columns = {"user": users, "items": lists} | ({} if scores is None else {"scores": scores})
    pq.write_table(pa.table(columns), "lists.parquet")


def test_an_external_row_is_marked_and_has_no_costs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users, lists = some_lists()
    write(users, lists)
    arguments = [
        "score",
        "lists.parquet",
        "--suite",
        "suite.yaml",
        "--name",
        "theirs|x",
        "--method-note",
        "commit 1a2b",
    ]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    record = record_of("theirs|x")
    assert record.external
    assert record.external["sha256"][:12] in said
    assert (record.external["note"], record.external["ordered_by"]) == ("commit 1a2b", "the file's order")
    (table,) = tables(latest(read_records([RESULTS])))
    assert [row[0].text + row[0].mark for row in table.rows] == ["popular", "unseen", "theirs|x ‡"]
    costs = {column.title: entry.text for column, entry in zip(table.columns, table.rows[2], strict=True)}
    assert {costs[title] for title in ("train min", "RAM GiB", "search q/s", "params")} == {"—"}
    assert costs["seeds"] == "1"
    (line,) = (line for line in table.footer if line.startswith("‡"))
    assert line.startswith("‡ theirs|x: ranked elsewhere and scored here, so without costs; lists.parquet (sha256 ")
    assert line.endswith("commit 1a2b")
    assert "hardware" not in [column.title for column in table.columns]
    for form, mark in (("md", "theirs\\|x ‡"), ("latex", r"theirs\textbar{}x \ddag{}"), ("terminal", "theirs|x ‡")):
        assert mark in render([table], form)
    assert "commit 1a2b" in render([table], "csv")
    assert main(["rescore", "results", "--metric", "gini@2"]) == 0
    assert set(record_of("theirs|x").scores) == {*record.scores, "gini@2"}
    assert "4 done, 0 to do" in plan().text()


def test_the_same_name_and_seed_takes_the_former_ones_place(place: Path) -> None:
    users, lists = some_lists()
    write(users, lists)
    first = scored("lists.parquet")
    assert scored("lists.parquet", "other").digest == first.digest  # the same lists: only their name is another one
    write(users, [each[::-1] for each in lists])
    second, third = scored("lists.parquet"), scored("lists.parquet", seed=1)
    assert len({each.digest for each in (first, second, third)}) == 3
    found = [each for each in read_records([RESULTS]) if each.external]
    assert {each.digest for each in found} == {
        first.digest,
        second.digest,
        third.digest,
    }  # the first goes by `other` now
    write(users, [each[:3] for each in lists])
    scored("lists.parquet")
    assert second.digest not in {each.digest for each in read_records([RESULTS])}
    (table,) = tables(read_records([RESULTS]))
    assert [(row[0].text, row[-1].text) for row in table.rows][2:] == [("other", "1"), ("theirs", "2")]


def test_ties_count_against_the_target_and_an_order_without_scores_is_strict(place: Path) -> None:
    table = read_lists(ranking_path(RESULTS, record_of("popular").digest))
    users, targets = table["user"].to_pylist(), [row[0] for row in table["targets"].to_pylist()]
    others = [
        next(item for item in row if item != target)
        for row, target in zip(table["kept_items"].to_pylist(), targets, strict=True)
    ]
    lists = [[target, other] for target, other in zip(targets, others, strict=True)]
    write(users, lists)
    assert scored("lists.parquet").scores["ndcg@2"] == 1
    write(users, lists, [[0.5, 0.5]] * 12)
    tied = scored("lists.parquet")
    assert tied.scores["ndcg@2"] == pytest.approx(1 / np.log2(3))
    assert tied.external["ordered_by"] == "scores"
    write(users, lists, [[0.5 + 1e-12, 0.5]] * 12)  # not equal, though they are as float32
    assert scored("lists.parquet").scores["ndcg@2"] == 1
    rows = {"user": np.repeat(users, 2), "item": np.concatenate(lists), "rank": [1, 1] * 12}
    arrow_csv.write_csv(pa.table({name: pa.array([*column]) for name, column in rows.items()}), "lists.csv")
    assert scored("lists.csv").scores["ndcg@2"] == pytest.approx(1 / np.log2(3))


def test_users_without_a_list_and_short_lists_are_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users, lists = some_lists()
    write(users[:-2], [each[:1] for each in lists[:-2]])
    with pytest.raises(RunError, match=rf"2 of the 12 evaluated users have no list, the first is user {users[-2]};"):
        scored("lists.parquet")
    assert main(["score", "lists.parquet", "--suite", "suite.yaml", "--name", "few", "--missing", "empty"]) == 0
    said = capsys.readouterr().out
    assert "2 evaluated users have no list and count as missed" in said
    assert "2 users without a list count as missed" in said
    assert "Short lists: few found 0 of 2 items for some users" in said
    record = record_of("few")
    assert (record.lists["shortest"], record.lists["kept"]) == (0, None)
    assert not any(values[-2:].any() for name, values in values_of(record).items() if name != "coverage@2")


def test_the_contest_s_file_is_read(place: Path) -> None:
    users, lists = some_lists()
    write(users, lists)
    expected = scored("lists.parquet").scores
    padded = [[*each, *["0" if isinstance(each[0], str) else 0] * 6] for each in lists]
    Path("result.json").write_text(json.dumps({"time": 12.5, "top10s": padded, "user": users}, indent=1))
    assert scored("result.json").scores == expected
    padded[3][0] = padded[3][-1]
    Path("result.json").write_text(json.dumps({"time": 12.5, "top10s": padded, "user": users}))
    with pytest.raises(RunError, match=r"result\.json: 1 item ids are not in the dataset, the first is '0'"):
        scored("result.json")


def test_a_wrong_request_or_file_is_one_message_and_writes_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users, lists = some_lists()
    write(users, lists)
    Path("few.csv").write_text("user,item,score\nnobody,nothing,1\n")
    shutil.copy("lists.parquet", "lists.xyz")
    before = sorted(RESULTS.iterdir())
    for arguments, said in (
        (["nowhere.parquet"], "nowhere.parquet: no such file"),
        (["results", "--format", "csv"], "results: is a folder"),
        (["lists.xyz"], "its suffix stands for no format of lists; give --format parquet|trec|json|csv"),
        (["few.csv"], "few.csv: 1 user ids are not in the dataset, the first is 'nobody'"),
        (["lists.parquet", "--name", "popular"], "--name popular: is a method of suite.yaml"),
        (["lists.parquet", "--name", " "], "--name ' ': should be 1 to 100 printable characters"),
        (["lists.parquet", "--filter", "histroy"], "unknown filter; did you mean history?"),
        (["lists.parquet", "--filter", "history"], "an item of the user's history, which the filter leaves out"),
        (["lists.parquet", "--set", "metrics=[ndcg@10]"], "k=10 is larger than the pool of"),
        (["lists.parquet", "--suite", "no.yaml"], "no.yaml"),
    ):
        assert main(["score", "--suite", "suite.yaml", "--name", "theirs", *arguments]) == 2, arguments
        shown = capsys.readouterr()
        assert said in shown.err
        assert len(shown.err.strip().splitlines()) == 1
    for arguments, said in (
        (["--method", "popular"], "has the seeds 0, 1; choose one with --seed"),
        (["--method", "popular", "--seed", "7"], "--seed 7: popular has the seeds 0, 1"),
        (["--method", "populr"], "--method populr: has no finished record; did you mean popular?"),
        (["--method", "popular", "--seed", "0", "--out", "a.xyz"], "its suffix stands for no format of lists"),
        (["--method", "popular", "--seed", "0", "--out", "no/folder/a.csv"], "no/folder/a.csv: cannot be written"),
    ):
        assert main(["export", "results", "--out", "out.csv", *arguments]) == 2, arguments
        assert said in capsys.readouterr().err
    assert sorted(RESULTS.iterdir()) == before
    assert not Path("out.csv").exists()
