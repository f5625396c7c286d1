"""A child says what happens, leaves when its parent is gone, and takes what it started with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from grbench.run.child_process import last_lines, run_child, terminated_is_interrupted

CHILD = """
import json, os, subprocess, sys, time
from pathlib import Path
from grbench.run.child_process import begin_child
events = begin_child()
job = json.loads(Path(sys.argv[1]).read_text())
print("printed", flush=True)
print("complained", file=sys.stderr, flush=True)
events("began", pid=os.getpid())
if job["does"] == "spawn":
    events("spawned", pid=subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
if job["does"] in ("wait", "spawn"):
    time.sleep(600)
if job["does"] == "ignore":
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
if job["does"] == "chatter":
    for line in ("{not json", '["a list"]', '{"no": "event"}'):
        events._file.write(line + "\\n")
    events("done")
if job["does"] == "die":
    events._file.write('{"event": "half of a l')
    events._file.flush()
    os.kill(os.getpid(), 9)
sys.exit(3)
"""


@pytest.fixture(autouse=True)
def child_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_events_come_through_and_prints_go_to_the_log(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    end = run_child("a_child", {"does": "nothing"}, log=tmp_path / "log", listen=heard.append, tick=lambda: None)
    assert [event["event"] for event in heard] == ["began"]
    assert (end.code, end.timed_out) == (3, False)
    assert end.log.splitlines() == ["printed", "complained"]


def test_a_line_that_is_no_event_goes_to_the_log(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    end = run_child("a_child", {"does": "chatter"}, log=tmp_path / "log", listen=heard.append, tick=lambda: None)
    assert [event["event"] for event in heard] == ["began", "done"]
    assert sorted(end.log.splitlines()) == sorted(
        ["printed", "complained", "{not json", '["a list"]', '{"no": "event"}']
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_what_a_killed_child_was_about_to_say_is_left_out(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    end = run_child("a_child", {"does": "die"}, log=tmp_path / "log", listen=heard.append, tick=lambda: None)
    assert [event["event"] for event in heard] == ["began"]
    assert end.code == -9


@pytest.mark.parametrize("does", ["wait", "spawn", "ignore"])
def test_a_child_that_takes_too_long_is_stopped_with_all_it_started(
    tmp_path: Path, does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grbench.run.child_process.STOP_SECONDS", 1.0)
    heard: list[dict[str, Any]] = []
    end = run_child("a_child", {"does": does}, log=tmp_path / "log", listen=heard.append, tick=lambda: None, timeout=4)
    assert end.timed_out
    assert heard
    assert all(gone(event["pid"]) for event in heard)


def test_an_interrupt_stops_the_child_and_goes_on_to_the_caller(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []

    def listen(event: dict[str, Any]) -> None:
        heard.append(event)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child("a_child", {"does": "wait"}, log=tmp_path / "log", listen=listen, tick=lambda: None)
    assert gone(heard[0]["pid"])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_child_leaves_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = f"""
from pathlib import Path
from grbench.run.child_process import run_child
run_child("a_child", {{"does": "wait"}}, log=Path({str(tmp_path / "log")!r}),
          listen=lambda event: print(event["pid"], flush=True), tick=lambda: None)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert gone(child)


def test_the_end_of_a_log_begins_with_a_whole_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\nsecond\nthird\n")
    assert last_lines(tmp_path / "log") == "first\nsecond\nthird"
    assert last_lines(tmp_path / "log", size=10) == "third"


def test_a_stop_by_a_batch_system_is_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminated_is_interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
