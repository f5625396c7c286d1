"""What ran beside a cell is said of all its attempts together."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from grbench.results.record import Record
from grbench.results.record_files import checkpoint_folder, read_record, record_path, write_record
from grbench.run.beside_file import BESIDE
from grbench.run.neighbours import Neighbours
from grbench.run.whole_cost import note_checkpoint, with_whole_cost

BEFORE = {"cells": 2, "share": 0.5, "threads": 4}
ALONE = {"cells": 0, "share": 0.0, "threads": 0}


def ended(folder: Path, **values: object) -> dict[str, object]:
    """The costs of a record whose last attempt ran alone for ten seconds."""
    record = Record("d" * 16, "tiny", "m", 0, **values)  # type: ignore[arg-type]
    write_record(folder, record)
    with Neighbours(folder / "cache") as neighbours:
        whole = with_whole_cost(folder, record, neighbours, 10.0)
    assert read_record(record_path(folder, record.digest)).cost == whole.cost
    return whole.cost


def test_a_cell_that_went_on_has_the_share_of_both_attempts(tmp_path: Path) -> None:
    phases = {"train": {"seconds": 25.0}}
    cost = ended(tmp_path, status="ok", cost={"phases": phases, "earlier_seconds": 30.0, "beside": BEFORE})
    assert (cost["total_seconds"], cost["overhead_seconds"]) == (40.0, 15.0)
    assert cost["beside"] == {"cells": 2, "share": pytest.approx(0.5 * 30 / 40), "threads": 4}


def test_a_cell_that_failed_says_what_ran_beside_it(tmp_path: Path) -> None:
    assert ended(tmp_path, status="oom") == {"beside": ALONE}
    assert ended(tmp_path, status="oom", cost={"beside": BEFORE}) == {"beside": BEFORE}  # of its kept model


def test_the_costs_of_a_rescored_cell_stay(tmp_path: Path) -> None:
    cost = {"total_seconds": 3.0, "beside": BEFORE}
    assert ended(tmp_path, status="ok", cost=cost) == cost


def test_a_checkpoint_comes_with_what_ran_beside_all_attempts_until_then(tmp_path: Path) -> None:
    place = checkpoint_folder(tmp_path, "d" * 16)
    place.mkdir()
    with Neighbours(tmp_path / "cache") as neighbours:
        event = {"event": "checkpoint", "beside": BEFORE, "earlier_seconds": 30.0}
        note_checkpoint(tmp_path, "d" * 16, event, neighbours, time.monotonic() - 10)
        kept = json.loads((place / BESIDE).read_text())
        assert kept == {"cells": 2, "share": pytest.approx(0.375, abs=0.01), "threads": 4}
        note_checkpoint(tmp_path, "d" * 16, event | {"beside": None, "earlier_seconds": 0.0}, neighbours, 0.0)
        assert json.loads((place / BESIDE).read_text()) == ALONE
