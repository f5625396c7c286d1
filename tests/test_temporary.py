"""Temporary files: what a killed process left is removed by the next one, what a living one writes is not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from grbench.temporary import beside, remove_leftovers, temporary_folder

WRITER = """
import sys, time
from pathlib import Path
from grbench.temporary import beside, temporary_folder
with beside(Path(sys.argv[1]) / "file.json") as file, beside(Path(sys.argv[1]) / "store") as store:
    with temporary_folder() as folder:
        file.write_text("half")
        store.mkdir()
        (store / "items.npy").touch()
        (folder / "job.json").touch()
        print("written", flush=True)
        time.sleep(60)
"""

SUITE = """
suite: tiny
dataset: {name: tencentgr_synthetic, users: 200000, items: 1000}
protocol: last_positive
metrics: [hit_rate@1]
methods: {floor: {encoder: most_popular}}
"""


def wait_until(condition: Callable[[], object]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


def runs_in(folder: Path) -> bool:
    """Whether a process has this working folder."""
    return any(process.info["cwd"] == str(folder) for process in psutil.process_iter(["cwd"]))


def test_what_is_renamed_stays_and_what_is_not_goes(tmp_path: Path) -> None:
    with beside(tmp_path / "kept.txt") as partial:
        partial.write_text("whole")
        partial.replace(tmp_path / "kept.txt")
    with contextlib.suppress(ZeroDivisionError), beside(tmp_path / "failed.txt") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    with beside(tmp_path / "folder") as one, beside(tmp_path / "folder") as another:
        assert one != another
        one.mkdir()
        (one / "inner").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    with temporary_folder() as folder:
        (folder / "inner").touch()
    assert not folder.exists()


def test_a_living_process_keeps_what_it_writes_and_a_killed_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system"
    system.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(system))

    def left() -> int:
        return sum(".partial-" in path.name for path in [*tmp_path.iterdir(), *system.iterdir()])

    def next_process() -> None:
        with beside(tmp_path / "other"), temporary_folder():
            pass

    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(system)}
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        next_process()
        assert left() == 3
        writer.kill()
    assert left() == 3
    elsewhere = tmp_path / f".store.partial-0123abcd-{writer.pid}-0"  # of another machine that shares the folder
    elsewhere.mkdir()
    next_process()
    assert left() == 1
    assert elsewhere.exists()
    remove_leftovers(tmp_path / "missing")


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_run_that_was_killed_leaves_nothing_once_the_next_one_has_ended(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    places = [tmp_path / name for name in ("cache", "system", "results/tiny")]
    (tmp_path / "system").mkdir()

    def left() -> list[str]:
        return sorted(path.name for place in places if place.exists() for path in place.glob("*partial-*"))

    def run(*options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "grbench", "run", "suite.yaml", "--cache", "cache", "--device", "cpu", *options],
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(tmp_path / "system")},
            stdout=subprocess.DEVNULL,
        )

    with run() as killed:
        wait_until(lambda: len(left()) == 3)  # the half-built store, the job's folder and the preparation's log
        killed.send_signal(signal.SIGKILL)
    assert len(left()) == 3
    wait_until(lambda: not runs_in(tmp_path))
    with run("--set", "dataset.users=50") as finished:
        assert finished.wait() == 0
    assert left() == []
    assert not list((tmp_path / "results").rglob("*preparation*"))
