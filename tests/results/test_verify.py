"""Each thing that can be wrong with a record and its lists is found, and where nothing is, nothing is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grbench.evaluation.ranking import target_ranks
from grbench.results.identity import cell_digest, lists_digest, training_digest
from grbench.results.lists import lists_table
from grbench.results.record import Record
from grbench.results.record_files import ranking_path, record_path, write_record
from grbench.results.values import with_values
from grbench.results.verify import verify_record
from grbench.types import Ranking

IDENTITY: dict[str, Any] = {"training": {"seed": 0}, "ranking": {"filters": []}, "metrics": []}
DIGESTS = {"training_digest": training_digest(IDENTITY), "lists_digest": lists_digest(IDENTITY)}
HITS = np.array([1.0, 0.0, 0.0])
ROOT = Path(__file__).parents[2]


def ranking(items: Any, scores: Any, targets: Any, ranks: Any) -> Ranking:
    return Ranking(
        users=np.arange(len(items)),
        items=np.array(items),
        scores=np.array(scores, np.float32),
        targets=np.array(targets),
        target_actions=np.where(np.array(targets) > 0, 2, 0),
        ranks=np.array(ranks),
        actions=("click",),
        pool=9,
        history_lengths=np.zeros(len(items), np.int64),
        training=None,  # type: ignore[arg-type] # files of lists hold nothing of it
    )


RIGHT: dict[str, Any] = {
    "items": [[3, 1], [2, 0], [1, 2]],
    "scores": [[0.5, 0.25], [1.0, -np.inf], [0.5, 0.5]],
    "targets": [[3, 0], [1, 2], [2, 0]],
    "ranks": [[1, 0], [0, 1], [0, 0]],  # the last one's tie goes on outside the list
}


def written(folder: Path, identity: Any = IDENTITY, kept: Any = None, hits: Any = HITS, **change: Any) -> Path:
    ids = np.arange(10) + 100
    lists = lists_table(ranking(**(RIGHT | change)), ids, ids, None if kept is None else ranking(**(RIGHT | kept)))
    record = Record(
        cell_digest(identity),
        "tiny",
        "m",
        0,
        "ok",
        identity=identity,
        counts={"evaluated": 3},
        **{"scores": {"hit_rate@2": float(HITS.mean())}, **DIGESTS},
    )
    return write_record(folder, record, with_values(lists, {"hit_rate@2": np.array(hits)}))


def test_what_is_right(tmp_path: Path) -> None:
    found = verify_record(written(tmp_path, kept={}))
    assert (found.problems, found.notes) == ([], [])
    assert list(found.found) == ["record", "files", "scores", "lists"]


def test_test_scores_of_a_row_of_a_grid_are_not_said(tmp_path: Path) -> None:
    path = written(tmp_path, hits=[1.0, 1.0, 0.0])
    (said,) = verify_record(path).problems
    assert "the record says 0.333" in said
    record = replace(
        Record.from_json(path.read_text(), str(path)),
        grid={"name": "wider", "points": 2, "ablation": False},
        metrics={"hit_rate@2": {"version": "v"}},
        curve=[{"epoch": 1, "hit_rate@2": 0.5}],
        counts={"evaluated": 3, "best_epoch": 1},
    )
    path.write_text(record.to_json())
    (said,) = verify_record(path).problems
    assert "hit_rate@2: the score is not the mean of the users' values; the numbers are not said" in said
    assert "0.3" not in said.removeprefix(str(tmp_path))
    assert "0.6" not in said.removeprefix(str(tmp_path))


def test_a_trial_has_nothing_of_the_test(tmp_path: Path) -> None:
    trial = {
        "study": "0" * 12,
        "number": 0,
        "values": {},
        "state": "complete",
        "metric": "hit_rate@2",
        "value": 0.5,
        "seconds": 1.0,
    }
    identity = {**IDENTITY, "trial": {"study": "0" * 12, "number": 0}}
    record = Record(cell_digest(identity), "tiny", "m", 0, "ok", identity=identity, trial=trial, **DIGESTS)
    assert verify_record(write_record(tmp_path, record)).problems == []
    (problem,) = verify_record(write_record(tmp_path, replace(record, scores={"hit_rate@2": 0.5}))).problems
    assert problem.endswith("is of a trial, which is compared on validation only, but has scores of the test")
    (problem,) = verify_record(write_record(tmp_path, record, pa.table({"user": [1]}))).problems
    assert problem.endswith("has lists of the test")


def test_the_sample_is_right() -> None:
    for path in (ROOT / "results" / "sample" / "quickstart").glob("*.json"):
        found = verify_record(path)
        assert found.problems == []
        assert "lists" in found.found


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        (
            {"scores": [[0.25, 0.5], [1.0, -np.inf], [0.5, 0.5]]},
            "lists",
            "1 lists are not sorted, best first, the first",
        ),
        ({"items": [[3, 3], [2, 0], [1, 2]]}, "lists", "1 lists hold an item twice, the first that of user 100"),
        ({"ranks": [[2, 0], [0, 1], [0, 0]]}, "lists", "1 users' targets have other ranks than their places"),
        ({"ranks": [[0, 0], [0, 1], [0, 0]]}, "lists", "1 users' targets have other ranks"),
        ({"ranks": [[1, 0], [2, 1], [0, 0]]}, "lists", "the first that of user 101"),
        ({"ranks": [[1, 0], [0, 1], [1, 0]]}, "lists", "the first that of user 102"),  # a tie counts against it
        ({"kept": {"ranks": [[2, 0], [0, 1], [0, 0]]}}, "lists", "kept_items: 1 users' targets"),
        ({"hits": [1.0, 1.0, 0.0]}, "scores", "hit_rate@2: the record says 0.333"),
    ],
)
def test_what_is_wrong_with_lists(tmp_path: Path, change: Any, check: str, said: str) -> None:
    found = verify_record(written(tmp_path, **change))
    assert said in "\n".join(found.found[check])
    assert sum(bool(problems) for problems in found.found.values()) == 1


def test_the_last_rank_of_a_tie_within_the_list_is_right_too(tmp_path: Path) -> None:
    assert verify_record(written(tmp_path, ranks=[[1, 0], [0, 1], [2, 0]])).problems == []


def test_what_is_wrong_with_the_record(tmp_path: Path) -> None:
    path = written(tmp_path, identity={**IDENTITY, "metrics": [{"name": "mrr"}]})
    assert verify_record(path).problems == []
    path = written(tmp_path, identity={**IDENTITY, "training": {"seed": 1}})
    assert [problem.split(": ")[1] for problem in verify_record(path).problems] == ["training_digest", "lists_digest"]
    path.write_text(path.read_text().replace('"evaluated": 3', '"evaluated": 4'))
    (problem,) = verify_record(path).problems
    assert "altered" in problem
    path.write_text("{")
    (problem,) = verify_record(path).problems
    assert "not a record" in problem


def test_files_beside_it_that_were_altered_or_are_gone(tmp_path: Path) -> None:
    path = written(tmp_path)
    lists = ranking_path(tmp_path, path.stem)
    lists.write_bytes(lists.read_bytes() + b"x")
    assert "was altered" in verify_record(path).problems[0]
    lists.unlink()
    assert verify_record(path).problems == [f"{lists}: is gone"]
    write_record(tmp_path, Record("gone", "tiny", "m", 0, "ok"))
    assert "gone.parquet: the lists are gone" in verify_record(record_path(tmp_path, "gone")).problems[0]


def test_what_an_earlier_grbench_wrote_is_noted(tmp_path: Path) -> None:
    path = written(tmp_path)
    values = json.loads(path.read_text()) | {"schema": 2}
    del values["checksum"], values["files"]
    path.write_text(json.dumps(values))
    found = verify_record(path)
    assert found.problems == []
    assert [note.partition(": ")[2] for note in found.notes] == ["has no checksum, because an earlier grbench wrote it"]


def test_lists_of_other_types_are_damaged_and_not_an_error(tmp_path: Path) -> None:
    record = Record("x", "tiny", "m", 0, "ok", scores={"m": 1.0})
    lists = with_values(pa.table({"user": [1], "items": [2], "scores": ["a"]}), {"m": np.array([1.0])})
    metadata = {"grbench": json.dumps({"length": 1, "kept_length": None})}
    found = verify_record(write_record(tmp_path, record, lists.replace_schema_metadata(metadata)))
    assert "the lists are damaged" in found.found["lists"][0]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), texts=st.booleans())
def test_the_ranks_of_any_search_are_right(tmp_path_factory: pytest.TempPathFactory, seed: int, texts: bool) -> None:
    rng = np.random.default_rng(seed)
    users, pool, k = int(rng.integers(1, 6)), int(rng.integers(1, 9)), int(rng.integers(1, 9))
    scores = -np.sort(-rng.integers(3, size=(users, pool)).astype(np.float32), axis=1)  # full of ties
    items = np.stack([rng.permutation(pool) + 1 for _ in range(users)])
    targets = np.stack([rng.permutation(pool + 2)[:2] + 1 for _ in range(users)])
    targets[:, 1] *= rng.integers(2, size=users)
    ranks = target_ranks(items, scores, targets, k)
    found = ranking(items[:, :k], scores[:, :k], targets, ranks)
    ids = np.array([f"i{item}" for item in range(pool + 3)]) if texts else np.arange(pool + 3)
    lists = lists_table(found, np.arange(users), ids)
    folder = tmp_path_factory.mktemp("lists")
    record = Record("x", "tiny", "m", 0, "ok", counts={"evaluated": users})
    path = write_record(folder, record, with_values(lists, {}))
    assert verify_record(path).problems == []
    wrong = replace(found, ranks=np.where(ranks == 0, 0, ranks % k + 1))
    path = write_record(folder, record, lists_table(wrong, np.arange(users), ids))
    assert bool(verify_record(path).problems) == bool((wrong.ranks != ranks).any())
