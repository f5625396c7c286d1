"""Runs on one folder share its cells: each is run by one, waited for by the others, and taken over from the dead."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from tiny_suite import suite_of

from grbench.errors import DataError
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.claims import Claim, claim, claim_path, claims_in
from grbench.results.record import Record
from grbench.results.record_files import read_records, write_record
from grbench.run import sharing
from grbench.run.progress import PlainProgress
from grbench.run.shared_store import shared_store
from grbench.run.sharing import alone, made_meanwhile, share


def planned(digest: str, former: Record | None = None) -> Any:
    return SimpleNamespace(blank=Record(digest, "tiny", digest, 0, "error"), former=former, name=f"{digest}, seed 0")


def record(digest: str, status: Any = "ok", **values: Any) -> Record:
    return Record(digest, "tiny", digest, 0, status, **values)


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Any]:
    """A function that claims a cell as another process does."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        from grbench.results.running_process import RunningProcess, _started

        facts = {**RunningProcess.this().to_json(), "process": process.pid, "started": _started(process.pid)}

        def claimed(digest: str) -> Path:
            path = claim_path(tmp_path, digest, 0)
            path.parent.mkdir(exist_ok=True)
            path.write_text(str(facts).replace("'", '"'))
            return path

        yield claimed
        process.kill()


def test_what_others_run_comes_last_and_is_not_run_again(
    tmp_path: Path, theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.01)
    claims = [theirs("a"), theirs("b"), theirs("d")]
    out = io.StringIO()
    got: list[tuple[str, str]] = []

    def end() -> None:
        while "waiting" not in out.getvalue():
            time.sleep(0.01)
        write_record(tmp_path, record("a"), pa.table({"user": [1]}))
        write_record(tmp_path, record("b", "interrupted"))
        write_record(tmp_path, record("d", "oom"))
        for path in claims:
            path.unlink()

    ending = threading.Thread(target=end)
    ending.start()
    for cell, result in share(tmp_path, [planned(digest) for digest in "abcd"], PlainProgress(out)):
        if isinstance(result, Claim):
            with result:
                got.append((cell.blank.digest, "claimed"))
        else:
            got.append((cell.blank.digest, result.status))
    ending.join()
    assert got[0] == ("c", "claimed")
    assert sorted(got[1:]) == [("a", "ok"), ("b", "claimed"), ("d", "oom")]
    assert claims_in(tmp_path) == {}
    assert re.search(r"waiting for other runs: a, seed 0 \(process [0-9]+ on .*\) and 2 more cells", out.getvalue())


def test_a_record_that_the_plan_knew_does_not_count(tmp_path: Path) -> None:
    assert made_meanwhile(tmp_path, planned("a")) is None
    write_record(tmp_path, record("a"), pa.table({"user": [1]}))
    (former,) = read_records([tmp_path])
    assert made_meanwhile(tmp_path, planned("a", former)) is None  # a forced run of a finished cell
    assert made_meanwhile(tmp_path, planned("a")) == former
    write_record(tmp_path, record("a", "error", error={"type": "E", "message": "m", "traceback": ""}))
    found = made_meanwhile(tmp_path, planned("a", former))
    assert found is not None
    assert found.status == "error"


def test_a_result_that_cannot_be_used_does_not_count(tmp_path: Path) -> None:
    path = write_record(tmp_path, record("a"), pa.table({"user": [1]}))
    lists = tmp_path / "a.parquet"
    kept = lists.read_bytes()
    lists.write_bytes(kept + b"x")
    assert made_meanwhile(tmp_path, planned("a")) is None
    lists.unlink()
    assert made_meanwhile(tmp_path, planned("a")) is None
    lists.write_bytes(kept)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    assert made_meanwhile(tmp_path, planned("a")) is None


def test_a_result_whose_last_step_of_writing_is_missing_counts(tmp_path: Path) -> None:
    path = write_record(tmp_path, record("a"), pa.table({"user": [1]}))
    path.rename(tmp_path / "a.next")
    found = made_meanwhile(tmp_path, planned("a"))
    assert found is not None
    assert found.done


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.001)
    inside: list[int] = []
    most: list[int] = []

    def enter(number: int) -> None:
        with alone(tmp_path / "cache", "store", lambda holder: None):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    assert list((tmp_path / "cache").iterdir()) == []


def test_nobody_waits_for_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with alone(tmp_path / "file" / "cache", "store", pytest.fail):
        assert isinstance(claim(tmp_path, "free"), Claim)


SHARED = 3


def test_two_runs_at_once_of_which_one_is_killed(world: Path) -> None:
    """Every cell is run to its end once, whoever runs it, and the run that is left has the whole table."""
    suite = suite_of(world, "sleeps: {encoder: {name: sleeps, seconds: 1}}", seeds=str(list(range(SHARED))))
    folder = world / "results" / "tiny"
    command = [sys.executable, "-m", "grbench", "run", str(suite), "--device", "cpu"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    deadline = time.monotonic() + 120
    killed = ""
    while not killed:  # one that is in the middle of a cell
        assert time.monotonic() < deadline
        for path in folder.glob("claims/*"):
            text = path.read_text() if path.exists() else ""
            if f'"process": {runs[0].pid},' in text and (folder / f"{path.name[:16]}.log").exists():
                os.kill(runs[0].pid, signal.SIGKILL)
                killed = path.name[:16]
                break
        time.sleep(0.02)
    first, second = (run.communicate(timeout=120)[0] for run in runs)
    assert runs[0].returncode == -signal.SIGKILL, first
    assert runs[1].returncode == 0, second
    found = read_records([folder])
    assert [entry.status for entry in found] == ["ok"] * SHARED
    assert all(entry.done for entry in found)
    assert re.search(rf"\| sleeps .*\| +{SHARED} \|", second)
    assert claims_in(folder) == {}
    for entry in found:
        times = len(re.findall(rf"sleeps, seed {entry.seed}: ok", first + second))
        # Of the killed run's cell, the result may have been written before it could be said.
        assert times == 1 or (entry.digest == killed and times == 0)
        assert "beside" in entry.cost or entry.digest == killed


class Watched:
    """A dataset that looks at the claims in the cache while its store is built."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.seen = cache, list[str]()

    def digest(self) -> str:
        return "d"

    def write(self, writer: Any) -> None:
        self.seen = list(claims_in(self.cache))
        raise DataError("enough was seen")


def test_a_store_is_claimed_while_it_is_built(tmp_path: Path) -> None:
    """Whichever command builds it, so that two at once build it once."""
    registry, source = Registry.load(), Watched(tmp_path)
    dataset = Component("interactions", {"path": "users.json"})
    with pytest.raises(DataError, match="enough was seen"):
        shared_store(source, dataset, registry, cache=tmp_path, report=lambda *_: None)  # type: ignore[arg-type]
    assert [name.rpartition("-")[0] for name in source.seen] == ["interactions"]
    assert claims_in(tmp_path) == {}
