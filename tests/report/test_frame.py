"""Results as a DataFrame: one row for each cell and metric, and nothing lost on the way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import grbench
from grbench.errors import RunError
from grbench.results.record import Record
from grbench.results.record_files import write_record

METRICS = {"hit_rate@10": {"higher_is_better": True}, "ndcg@10": {"higher_is_better": True}}


def record(digest: str, method: str, seed: int, scores: list[float] | None, **values: Any) -> Record:
    made: dict[str, Any] = {
        "suite": "s",
        "status": "ok" if scores else "error",
        "error": None if scores else {"type": "ValueError", "message": "no such thing", "traceback": ""},
        "metrics": METRICS,
        "scores": dict(zip(METRICS, scores, strict=True)) if scores else {},
        "identity": {"training": {}, "ranking": {}, "metrics": []},
        "cost": {"train_seconds": 2.5, "phases": {"search": {"seconds": 0.5}}} if scores else {},
        "counts": {"evaluated": 7, "dropped": {"no_positive": 1}} if scores else {},
    }
    return Record(digest=digest, method=method, seed=seed, **(made | values))


def test_one_row_for_each_cell_and_metric(tmp_path: Path) -> None:
    write_record(tmp_path / "s", record("a", "m", 0, [0.5, 0.25]))
    write_record(tmp_path / "s", record("b", "m", 1, [0.25, 0.125]))
    write_record(tmp_path / "s", record("c", "broken", 0, None, order=1))
    frame = grbench.load_results(tmp_path)
    assert list(zip(frame.method, frame.seed, frame.metric, strict=True)) == [
        *(("m", 0, name) for name in METRICS),
        *(("m", 1, name) for name in METRICS),
        *(("broken", 0, name) for name in METRICS),
    ]
    assert frame.value.tolist()[:4] == [0.5, 0.25, 0.25, 0.125]
    assert frame.value.isna().tolist() == [False] * 4 + [True] * 2
    assert frame.error.fillna("").tolist() == [""] * 4 + ["no such thing"] * 2
    assert frame["cost.phases.search.seconds"].tolist()[:4] == [0.5] * 4
    assert math.isnan(frame["cost.train_seconds"].iloc[-1])
    assert frame["counts.dropped.no_positive"].iloc[0] == 1
    means = frame[frame.status == "ok"].groupby(["method", "metric"]).value.mean()
    assert means.loc["m", "hit_rate@10"] == 0.375


def test_a_cell_that_was_scored_anew_counts_once(tmp_path: Path) -> None:
    one = {"hit_rate@10": METRICS["hit_rate@10"]}
    write_record(tmp_path, record("a", "m", 0, [0.5, 0.25], metrics=one, lists_digest="l", finished="2026-01-01"))
    write_record(tmp_path, record("b", "m", 0, [0.5, 0.25], lists_digest="l", finished="2026-01-02", rescored_from="a"))
    frame = grbench.load_results(str(tmp_path / "a.json"), tmp_path)
    assert frame.digest.tolist() == ["b", "b"]
    assert frame.rescored_from.tolist() == ["a", "a"]


def test_records_of_version_1_say_that_their_identity_is_an_older_one() -> None:
    frame = grbench.load_results(Path(__file__).parents[1] / "results" / "version_1")
    assert frame.older_identity.tolist() == [True] * 3
    assert frame.metric.tolist() == ["hit_rate@10", "ndcg@10", "coverage@10"]


def test_no_results_are_an_empty_frame_and_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert grbench.load_results(tmp_path).empty
    with pytest.raises(RunError, match="no such file or folder of results"):
        grbench.load_results(tmp_path / "nothing")


def test_rows_that_were_not_chosen_are_told_from_those_that_tables_show(tmp_path: Path) -> None:
    stages = [{"training": {"validate_every": 1, "select": "ndcg@10"}}]
    for place, (name, score) in enumerate({"g[w=1]": 0.4, "g[w=2]": 0.3}.items()):
        identity = {"training": {"stages": stages, "width": place}, "ranking": {}, "metrics": []}
        grid = {"name": "g", "points": 2, "ablation": False}
        validated = {"curve": [{"epoch": 1, "ndcg@10": score}], "counts": {"best_epoch": 1}}
        write_record(tmp_path, record(f"{place}", name, 0, [0.1, 0.2], grid=grid, identity=identity, **validated))
    write_record(tmp_path, record("3", "plain", 0, [0.1, 0.2]))
    write_record(tmp_path, record("4", "broken", 0, None))
    frame = grbench.load_results(tmp_path)
    assert dict(zip(frame.method, frame.shown, strict=True)) == {
        **{"g[w=1]": True, "g[w=2]": False},
        **{"plain": True, "broken": False},
    }
