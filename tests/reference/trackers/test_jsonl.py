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


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write here"):
        JsonLines().start(tmp_path / "file" / "sub", {})
