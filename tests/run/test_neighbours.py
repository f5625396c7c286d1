"""What else runs on this machine is seen by its marks and claims, and only while it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grbench.results.claims import claim_path
from grbench.results.running_process import RunningProcess, _started
from grbench.run import neighbours
from grbench.run.neighbours import Neighbours, joined


@pytest.fixture
def other() -> Iterator[dict[str, Any]]:
    """Another process of this machine, as its marks and claims call it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield {**RunningProcess.this().to_json(), "process": process.pid, "started": _started(process.pid)}
        process.kill()


def mark(cache: Path, facts: Any) -> Path:
    (cache / "running").mkdir(exist_ok=True)
    path = cache / "running" / "other.json"
    path.write_text(facts if isinstance(facts, str) else json.dumps(facts))
    return path


def test_nobody_else(tmp_path: Path) -> None:
    with Neighbours(tmp_path, tmp_path) as alone:
        assert alone.facts() == {"cells": 0, "share": 0.0, "threads": 0}
        assert len(list((tmp_path / "running").iterdir())) == 1
    assert list((tmp_path / "running").iterdir()) == []


def test_cells_of_the_same_run(tmp_path: Path) -> None:
    with (
        Neighbours(tmp_path, tmp_path) as first,
        Neighbours(tmp_path, threads=2) as second,
        Neighbours(tmp_path, threads=3),
    ):
        assert first.facts()["cells"] == second.facts()["cells"] == 2
        assert first.facts()["threads"] == 5
    assert list((tmp_path / "running").iterdir()) == []


def test_another_run_for_a_part_of_the_time(
    tmp_path: Path, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "LOOK_SECONDS", 0.01)
    with Neighbours(tmp_path) as cell:
        path = mark(tmp_path, other | {"threads": 3})
        while not cell.facts()["cells"]:
            time.sleep(0.01)
        path.unlink()
        began = time.monotonic()
        while time.monotonic() - began < 0.2:
            time.sleep(0.01)
        facts = cell.facts()
    assert (facts["cells"], facts["threads"]) == (1, 3)
    assert 0 < facts["share"] < 1


def test_who_has_ended_and_who_is_elsewhere_do_not_count(tmp_path: Path, other: dict[str, Any]) -> None:
    path = mark(tmp_path, other | {"started": 1.0})  # another process had this number
    with Neighbours(tmp_path) as cell:
        assert cell.facts()["cells"] == 0
    assert not path.exists()
    for facts in (other | {"host": "another-machine"}, "{", "[]", '{"process": "x"}'):
        path = mark(tmp_path, facts)
        with Neighbours(tmp_path) as cell:
            assert cell.facts()["cells"] == 0
        assert path.exists()


def test_a_run_with_another_cache_is_seen_by_its_claim(tmp_path: Path, other: dict[str, Any]) -> None:
    path = claim_path(tmp_path, "abc", 0)
    path.parent.mkdir()
    path.write_text(json.dumps(other))
    with Neighbours(tmp_path / "cache", tmp_path) as cell:
        assert cell.facts() == {"cells": 1, "share": pytest.approx(1.0), "threads": 0}


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with Neighbours(tmp_path / "cache", tmp_path / "absent") as cell:
        assert cell.facts()["cells"] == 0


def test_training_that_was_taken_over_counts_by_its_time() -> None:
    earlier, now = {"cells": 2, "share": 1.0, "threads": 4}, {"cells": 0, "share": 0.0, "threads": 0}
    assert joined(earlier, now, 30.0, 10.0) == {"cells": 2, "share": 0.75, "threads": 4}
    assert joined(None, now, 0.0, 10.0) == now
