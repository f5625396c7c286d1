"""The log is there, line by line, even if the cell never finishes."""

import json

import pytest

from grbench.errors import RunError
from grbench_reference.trackers.jsonl import JsonLines


def test_lines(tmp_path):
    tracker = JsonLines()
    tracker.start(tmp_path / "abc.d" / "jsonl", {"method": "m"})
    tracker.log(3, {"loss": 0.5, "step": 1.0})  # the step of training, whatever the values are called
    path = tmp_path / "abc.d" / "jsonl" / "log.jsonl"
    assert len(path.read_text().splitlines()) == 2
    tracker.finish({"status": "ok", "scores": {"ndcg@10": 0.1}})
    start, log, finish = map(json.loads, path.read_text().splitlines())
    assert start["cell"]["method"] == "m"
    assert log == {"event": "log", "step": 3, "loss": 0.5}
    assert finish == {"event": "finish", "status": "ok", "scores": {"ndcg@10": 0.1}}


def test_a_row_that_validation_chooses_from_leaves_its_test_scores_out(tmp_path):
    tracker = JsonLines()
    tracker.start(tmp_path, {})
    grid = {"name": "wider", "points": 2, "ablation": False}
    record = {"status": "ok", "scores": {"ndcg@10": 0.1}, "grid": grid, "counts": {"validated_users": 9}}
    tracker.finish(record)
    (finish,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()[1:]]
    assert finish == {"event": "finish", "status": "ok", "scores": None}


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write here"):
        JsonLines().start(tmp_path / "file" / "sub", {})


def test_a_log_goes_on_from_a_step_and_says_so(tmp_path):
    first = JsonLines(every_steps=1)
    first.start(tmp_path, {"method": "m"})
    for step in (1, 2, 3):
        first.log(step, {"loss": step / 10})
    first.finish({"status": "error", "scores": {}})
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text() + '{"event": "log", "st')  # as a killed process leaves it
    again = JsonLines(every_steps=1)
    again.resume(tmp_path, {"method": "m"}, 2)
    again.log(3, {"loss": 0.3})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["event"], line.get("step")) for line in lines] == [
        ("start", None),
        ("log", 1),
        ("log", 2),
        ("resume", 2),
        ("log", 3),
    ]


def test_without_its_log_a_tracker_goes_on_with_a_new_one(tmp_path):
    tracker = JsonLines()
    tracker.resume(tmp_path / "new", {"method": "m"}, 7)
    start, resume = map(json.loads, (tmp_path / "new" / "log.jsonl").read_text().splitlines())
    assert start["cell"] == {"method": "m"}
    assert resume == {"event": "resume", "step": 7}
