"""A claim is one process's, until it is given back or its holder is dead; then it is one other's."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from grbench.errors import RunError
from grbench.results import claims
from grbench.results.claims import STALE_SECONDS, Claim, ClaimFile, claim, claim_path, claims_in, find_claim
from grbench.results.running_process import RunningProcess

ABSENT = {"host": "another-machine", "boot": "x", "process": 7, "started": 1.0, "since": "2026-01-01T00:00:00+00:00"}


def left(folder: Path, facts: Any, number: int = 0, age: float = 0.0) -> Path:
    """The file of somebody else's claim, renewed `age` seconds ago."""
    path = claim_path(folder, "abc", number)
    path.parent.mkdir(exist_ok=True)
    path.write_text(facts if isinstance(facts, str) else json.dumps(facts))
    os.utime(path, (time.time() - age,) * 2)
    return path


def files_of(folder: Path) -> list[Path]:
    return list((folder / claims.FOLDER).iterdir())


def dead_process() -> dict[str, Any]:
    """A process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        number = process.pid
    return {**RunningProcess.this().to_json(), "process": number}


def many(folder: Path, times: int = 16) -> list[Claim | ClaimFile]:
    """What so many that claim at once get."""
    barrier = threading.Barrier(times)

    def one(_: int) -> Claim | ClaimFile:
        barrier.wait()
        return claim(folder, "abc")

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


def test_one_of_many_gets_it_and_the_others_hear_who(tmp_path: Path) -> None:
    got = many(tmp_path)
    (mine,) = [each for each in got if isinstance(each, Claim)]
    others = [each for each in got if isinstance(each, ClaimFile)]
    assert len(others) == 15
    assert all(each.lives for each in others)
    mine.give_back()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("attempt", range(5))
def test_one_of_many_takes_over_a_dead_one(tmp_path: Path, attempt: int) -> None:
    left(tmp_path, dead_process())
    (mine,) = [each for each in many(tmp_path) if isinstance(each, Claim)]
    assert mine.path.name == "abc.claim-1"
    mine.give_back()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("facts", "age", "lives"),
    [
        (dead_process, 0.0, False),
        (lambda: RunningProcess.this().to_json(), 10 * STALE_SECONDS, True),
        (lambda: {**RunningProcess.this().to_json(), "started": 1.0}, 0.0, False),  # another one has its number now
        (lambda: ABSENT, STALE_SECONDS / 2, True),
        (lambda: ABSENT, STALE_SECONDS * 2, False),
        (lambda: {**RunningProcess.this().to_json(), "boot": "the last one"}, STALE_SECONDS * 2, False),
        (lambda: "", STALE_SECONDS / 2, True),  # just being written
        (lambda: '{"host": 1', STALE_SECONDS * 2, False),
        (lambda: '[{"process": "x"}]', STALE_SECONDS * 2, False),
    ],
)
def test_who_is_dead(tmp_path: Path, facts: Callable[[], Any], age: float, lives: bool) -> None:
    left(tmp_path, facts(), age=age)
    got = claim(tmp_path, "abc")
    assert isinstance(got, ClaimFile) == lives
    if isinstance(got, Claim):
        got.give_back()


def test_the_newest_claim_counts(tmp_path: Path) -> None:
    left(tmp_path, dead_process(), 9)
    left(tmp_path, ABSENT, 10)
    claim_path(tmp_path, "abc", 10).with_name("abc.claim-x").touch()
    claim_path(tmp_path, "abcd", 11).touch()
    found = find_claim(tmp_path, "abc")
    assert found is not None
    assert found.path.name == "abc.claim-10"
    assert found.where == "process 7 on another-machine, since 2026-01-01T00:00:00+00:00"
    assert {name: each.number for name, each in claims_in(tmp_path).items()} == {"abc": 10, "abcd": 11}
    assert claims_in(tmp_path / "absent") == {}


def test_it_is_given_back_however_its_cell_ends(tmp_path: Path) -> None:
    got = claim(tmp_path, "abc")
    assert isinstance(got, Claim)

    def interrupted() -> None:
        with got:
            assert find_claim(tmp_path, "abc") is not None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_it_is_renewed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.01)
    got = claim(tmp_path, "abc")
    assert isinstance(got, Claim)
    with got:
        os.utime(got.path, (1, 1))
        deadline = time.monotonic() + 60
        while got.path.stat().st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_who_slept_too_long_leaves_the_claim_of_who_took_over(tmp_path: Path) -> None:
    got = claim(tmp_path, "abc")
    assert isinstance(got, Claim)
    with got:
        got.path.unlink()  # another machine took over, ended, and a third one has claimed anew
        theirs = left(tmp_path, ABSENT)
    assert files_of(tmp_path) == [theirs]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"abc\.claim-0: the cell cannot be claimed \(Not a directory\)"):
        claim(tmp_path / "file", "abc")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process


def test_a_process_is_known_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    facts = RunningProcess.this().to_json()
    assert RunningProcess.from_json(facts) == RunningProcess.this()
    assert RunningProcess.this().runs()
    assert facts["host"] == platform.node()
    assert RunningProcess("elsewhere", "x", os.getpid(), 1.0).runs() is None
    assert [RunningProcess.from_json(each) for each in (None, [], {}, facts | {"process": True})] == [None] * 4
    started = RunningProcess(platform.node(), RunningProcess.this().boot, sleeper.pid, 0.0)
    assert started.runs() is False  # the number runs, but since another time
    sleeper.kill()
    deadline = time.monotonic() + 60
    while sleeper.poll() is None:
        assert time.monotonic() < deadline
    assert started.runs() is False
