"""What `grbench status` says of cells in every state."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from demo_plugins import demo_registry, write_suite

from grbench.results.claims import STALE_SECONDS, claim_path
from grbench.results.record import now
from grbench.results.record_files import write_record
from grbench.run.plan import make_plan
from grbench.run.status import suite_status
from grbench.suite.suite import load_suite

METHODS = "".join(
    f"\n  {name}: {{encoder: {{name: dense, width: {at + 1}}}, loss: contrastive}}" for at, name in enumerate("abcde")
)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that plans the demo suite, whose dataset has nothing to look at."""
    monkeypatch.setattr("grbench.run.plan._checked_source", lambda cell, registry, cache: "data")
    suite = load_suite(write_suite(tmp_path, methods=METHODS), ["seeds=[0]"])
    registry = demo_registry()
    return lambda: make_plan(suite, suite.cells(registry), registry, tmp_path / "results")


def states(plan: Any) -> dict[str, tuple[str, str, float | None]]:
    found = suite_status(plan()).cells
    return {each.planned.cell.method.name: (each.state, each.detail, each.left) for each in found}


def test_every_state_and_what_is_left(plan: Any) -> None:
    cells, folder = {each.cell.method.name: each.blank for each in plan().cells}, plan().folder
    assert {state for state, _, _ in states(plan).values()} == {"to do"}
    assert "is not known" in suite_status(plan()).text()

    def put(name: str, status: Any, **values: Any) -> None:
        from dataclasses import replace

        error = None if status == "ok" else {"type": "E", "message": f"{name} went wrong\nmore", "traceback": ""}
        lists = pa.table({"user": [1]}) if status == "ok" else None
        write_record(folder, replace(cells[name], status=status, error=error, **values), lists)

    put("a", "ok", cost={"total_seconds": 60.0}, finished="2026-01-01")
    put("b", "oom")
    put("c", "interrupted")
    holder = {"host": "node3", "boot": "x", "process": 12, "started": 1.0, "since": now()}
    for name, age in (("d", 0.0), ("e", 2 * STALE_SECONDS)):
        path = claim_path(folder, cells[name].digest, 0)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(holder))
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    found = states(plan)
    assert found["a"] == ("done", "", None)
    assert found["b"] == ("failed", "oom: b went wrong", None)
    assert found["c"][:2] == ("to do", "interrupted: c went wrong")
    assert found["d"][:2] == ("running", f"process 12 on node3, since {holder['since']}")
    assert found["e"][:2] == ("to do", f"its run ended without a result (process 12 on node3, since {holder['since']})")
    text = suite_status(plan()).text()
    assert "demo: 5 cells: 1 done, 1 running, 1 failed, 2 to do" in text


def test_cells_like_finished_ones_should_take_as_long(plan: Any) -> None:
    from dataclasses import replace

    for each in plan().cells:
        blank = replace(each.blank, digest=f"old-{each.blank.method}", status="ok", cost={"total_seconds": 90.0})
        write_record(plan().folder, blank, pa.table({"user": [1]}))
    assert "Left: about 7 min 30 s for one run (as cells took before)." in suite_status(plan()).text()
    for at, each in enumerate(plan().cells[:2]):
        holder = {"host": "node3", "boot": "x", "process": 12 + at, "started": 1.0, "since": ""}
        path = claim_path(plan().folder, each.blank.digest, 0)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(holder))
    assert "7 min 30 s for one run, 3 min 45 s for the 2 runs at work together" in suite_status(plan()).text()
