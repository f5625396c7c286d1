"""A child says what happens, leaves when its parent is gone, and takes what it started with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from grbench.errors import RunError
from grbench.run.backends.child_process import (
    SETTINGS,
    End,
    ForkServer,
    last_lines,
    oom_kills,
    run_child,
    terminated_is_interrupted,
)

CHILD = """
import atexit, os, signal, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

POOL = ThreadPoolExecutor(2)

def main(job, events):
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
    if job["does"] == "finish":
        threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
        atexit.register(print, "at exit")
    if job["does"] == "pool":
        events("computed", value=POOL.submit(sum, [1, 2]).result())
    if job["does"] == "linger":
        threading.Thread(target=time.sleep, args=(600,)).start()
        atexit.register(print, "at exit")
    if job["does"] == "run_out":
        with open(job["counts"], "w") as file:
            file.write("oom 5\\noom_kill 4\\n")
        os.kill(os.getpid(), 9)
    if job["does"] == "raise":
        raise ValueError("deliberate")
    if job["does"] == "look":
        events(
            "saw", modules=list(sys.modules), path=sys.path, settings=dict(os.environ), group=os.getpgid(0),
            parent=os.getppid(), looked=getattr(sys.modules.get("looks"), "CHECK", None),
        )
    return 3
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of modules that children can import."""
    place = tmp_path_factory.mktemp("modules")
    (place / "a_child.py").write_text(CHILD)
    (place / "harmless.py").write_text("")
    (place / "raises.py").write_text("raise ValueError('deliberate')\n")
    (place / "ends.py").write_text("import os; os._exit(7)\n")
    (place / "looks.py").write_text("import os; CHECK = os.environ['PYTORCH_NVML_BASED_CUDA_CHECK']\n")
    (place / "starts_a_thread.py").write_text(
        "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))
        yield place


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[ForkServer]:
    with ForkServer(["harmless", "raises"]) as server:
        yield server


Heard = list[dict[str, Any]]


def run(server: ForkServer, tmp_path: Path, does: str, counts: Path | None = None, **options: Any) -> tuple[Heard, End]:
    """What a child that `does` said, and how it ended."""
    heard: Heard = []
    usual = {"log": tmp_path / "log", "listen": heard.append, "tick": lambda: None}
    return heard, run_child(server, "a_child", {"does": does, "counts": str(counts)}, **{**usual, **options})


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_events_come_through_and_prints_go_to_the_log(server: ForkServer, tmp_path: Path) -> None:
    heard, end = run(server, tmp_path, "nothing")
    assert [event["event"] for event in heard] == ["began"]
    assert (end.code, end.timed_out) == (3, False)
    assert end.log.splitlines() == ["printed", "complained"]


def test_a_line_that_is_no_event_goes_to_the_log(server: ForkServer, tmp_path: Path) -> None:
    heard, end = run(server, tmp_path, "chatter")
    assert [event["event"] for event in heard] == ["began", "done"]
    assert end.log.splitlines() == ["printed", "complained", "{not json", '["a list"]', '{"no": "event"}']


def test_a_child_starts_with_what_the_server_imported(server: ForkServer, place: Path, tmp_path: Path) -> None:
    children = [run(server, tmp_path, "look")[0] for _ in range(2)]
    (first, saw), (second, _) = children
    assert {"torch", "grbench.run.run_cell", "harmless"} <= {*saw["modules"]}
    assert first["pid"] != second["pid"]
    assert saw["group"] == first["pid"]
    assert saw["parent"] == server.process_id  # one server for both
    assert saw["path"][0] == str(place)  # the first of PYTHONPATH, and not the caller's folder
    assert saw["settings"].items() >= SETTINGS.items()


def test_a_child_ends_as_python_does(server: ForkServer, tmp_path: Path) -> None:
    _, end = run(server, tmp_path, "finish")
    assert end.log.splitlines()[-2:] == ["a thread", "at exit"]
    _, end = run(server, tmp_path, "raise")
    assert end.code == 1
    assert end.log.splitlines()[-1] == "ValueError: deliberate"


def test_a_child_with_an_idle_thread_pool_ends(server: ForkServer, tmp_path: Path) -> None:
    heard, end = run(server, tmp_path, "pool", timeout=60)
    assert heard[-1]["value"] == 3
    assert (end.code, end.timed_out) == (3, False)


def test_a_child_that_waits_for_a_thread_can_be_interrupted(server: ForkServer, tmp_path: Path) -> None:
    _, end = run(server, tmp_path, "linger", timeout=2)
    assert (end.code, end.timed_out) == (3, True)  # and not -9: it did not have to be killed
    assert end.log.splitlines()[-2:] == ["KeyboardInterrupt", "at exit"]


@pytest.mark.own_fork_server
@pytest.mark.parametrize("own", ["0", None])
def test_a_child_has_the_users_way_of_counting_gpus(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.delenv("PYTORCH_NVML_BASED_CUDA_CHECK", raising=False)
    if own is not None:
        monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", own)
    with ForkServer(["looks"]) as server:
        (_, saw), _ = run(server, tmp_path, "look")
    assert saw["looked"] == "1"  # while the server imports
    assert saw["settings"].get("PYTORCH_NVML_BASED_CUDA_CHECK") == own


@pytest.mark.own_fork_server
@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("ends", "the fork server ended with exit status 7"),
        (
            "starts_a_thread",
            "the fork server ended with exit status 1: importing harmless, starts_a_thread starts threads, which a "
            "fork does not copy",
        ),
    ],
)
def test_the_server_goes_without_what_it_cannot_fork_with_and_says_why(
    place: Path, tmp_path: Path, module: str, reason: str
) -> None:
    notes: list[str] = []
    with ForkServer(["harmless", module], note=notes.append) as server:
        (_, saw), end = run(server, tmp_path, "look")
        run(server, tmp_path, "nothing")
    assert end.code == 3
    assert {"harmless", module}.isdisjoint(saw["modules"])
    assert notes == [f"note: every cell imports its plug-ins anew, which takes longer, because {reason}"]


@pytest.mark.own_fork_server
def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError('a pyarrow of somebody else')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with ForkServer() as server, pytest.raises(RunError, match=r"(?s)fork server ended.*a pyarrow of somebody else"):
        run(server, tmp_path, "nothing")


def test_what_a_killed_child_was_about_to_say_is_left_out(server: ForkServer, tmp_path: Path) -> None:
    heard, end = run(server, tmp_path, "die")
    assert [event["event"] for event in heard] == ["began"]
    assert (end.code, end.server_lost, end.oom_killed) == (-9, False, False)
    assert end.log.splitlines() == ["printed", "complained"]


def test_a_kill_for_memory_is_known_where_the_kernel_counts_it(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroup, counts = tmp_path / "cgroup", tmp_path / "jobs" / "mine" / "memory.events"
    monkeypatch.setattr("grbench.run.backends.child_process.oom_kills", lambda: oom_kills(cgroup, tmp_path))
    assert oom_kills(cgroup, tmp_path) is None
    cgroup.write_text("4:memory:/old\n")  # version 1
    assert oom_kills(cgroup, tmp_path) is None
    cgroup.write_text("4:memory:/old\n0::/jobs/mine\n")
    assert oom_kills(cgroup, tmp_path) is None  # no such file
    counts.parent.mkdir(parents=True)
    counts.write_text("oom 4\noom_kill 3\n")
    assert oom_kills(cgroup, tmp_path) == 3
    assert not run(server, tmp_path, "die")[1].oom_killed
    assert run(server, tmp_path, "run_out", counts=counts)[1].oom_killed
    assert oom_kills(cgroup, tmp_path) == 4


def test_a_lost_server_takes_its_child_along_and_is_started_again(server: ForkServer, tmp_path: Path) -> None:
    heard: Heard = []

    def listen(event: dict[str, Any]) -> None:
        heard.append(event)
        os.kill(server.process_id, signal.SIGKILL)

    _, end = run(server, tmp_path, "wait", listen=listen)
    assert (end.code, end.server_lost) == (-9, True)
    assert gone(heard[0]["pid"])
    assert run(server, tmp_path, "nothing")[1].code == 3


@pytest.mark.parametrize("does", ["wait", "spawn", "ignore"])
def test_a_child_that_takes_too_long_is_stopped_with_all_it_started(
    server: ForkServer, tmp_path: Path, does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grbench.run.backends.child_process.STOP_SECONDS", 1.0)
    heard, end = run(server, tmp_path, does, timeout=4)
    assert end.timed_out
    assert len(heard) == (2 if does == "spawn" else 1)
    assert all(gone(event["pid"]) for event in heard)


def test_an_interrupt_stops_the_child_and_goes_on_to_the_caller(server: ForkServer, tmp_path: Path) -> None:
    heard: Heard = []

    def listen(event: dict[str, Any]) -> None:
        heard.append(event)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(server, tmp_path, "wait", listen=listen)
    assert gone(heard[0]["pid"])
    assert run(server, tmp_path, "nothing")[1].code == 3


def test_child_and_server_leave_when_their_parent_is_killed(place: Path, tmp_path: Path) -> None:
    parent = f"""
from pathlib import Path
from grbench.run.backends.child_process import ForkServer, run_child
server = ForkServer()
run_child(server, "a_child", {{"does": "wait"}}, log=Path({str(tmp_path / "log")!r}),
          listen=lambda event: print(server.process_id, event["pid"], flush=True), tick=lambda: None)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = [int(pid) for pid in process.stdout.readline().split()]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(left) == 2
    assert all(gone(pid) for pid in left)


def test_the_end_of_a_log_begins_with_a_whole_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\nsecond\nthird\n")
    assert last_lines(tmp_path / "log") == "first\nsecond\nthird"
    assert last_lines(tmp_path / "log", size=10) == "third"


def test_a_stop_by_a_batch_system_is_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminated_is_interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
