"""Work in a process of its own: a crash or an out-of-memory kill there costs that work alone, and its memory goes back.

The child runs `python -P -m MODULE JOB.json` and says what happens as JSON lines. The parent listens, keeps the child's
stderr (and whatever a plug-in prints) in a log, and stops it with everything it started. The child leaves when the
parent is gone: it holds the reading end of a pipe that only the parent keeps open.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

STOP_SECONDS = 5.0
"""How long a child may tidy up after it was asked to stop."""

ChildMessage = dict[str, Any]


@dataclass(frozen=True)
class End:
    """How a child ended. `code` is its exit status, negative for the signal that killed it; `log` its last lines."""

    code: int
    timed_out: bool
    log: str


class ChildMessages:
    """The child's end of the pipe: `events("train", loss=1.5)` writes one JSON line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __call__(self, event: str, /, **values: Any) -> None:
        self._file.write(json.dumps({"event": event, **values}, default=float) + "\n")
        self._file.flush()


def begin_child() -> ChildMessages:
    """Makes this process a child as said above; call it first. Prints of plug-ins go to the log from here on."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it otherwise
    private = os.dup(1)
    os.dup2(2, 1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    return ChildMessages(os.fdopen(private, "w", encoding="utf-8"))


def _leave_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


# What libraries read when a process starts. Whoever sets one of these variables has it their way.
#
# OpenMP's threads wait for each other hundreds of times a step. Left to themselves they spin for milliseconds, and
# starve each other where cores are shared (a seventh of the speed); put to sleep at once, they halve the speed of idle
# cores. So GNU's library spins for some microseconds, then sleeps.
#
# A training step takes and gives back the same hundreds of MB again and again. GNU's allocator hands blocks back to the
# system each time, which then clears them anew, page by page: a quarter of a step. So it keeps them, in large pages
# (`Meter` has it let go between phases). Only blocks above 8 MB, whose sizes differ from step to step, get a mapping of
# their own: kept in the heap, they break it up, and it grows by MBs a step.
SETTINGS = {
    "GOMP_SPINCOUNT": "4000",
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in {
            "hugetlb": 1,
            "mmap_threshold": 1 << 23,
            "trim_threshold": 1 << 34,
            "top_pad": 1 << 26,
        }.items()
    ),
}


def run_child(
    module: str,
    job: Mapping[str, Any],
    *,
    log: Path,
    listen: Callable[[ChildMessage], None],
    tick: Callable[[], None],
    timeout: float | None = None,
) -> End:
    """Runs `python -P -m module JOB.json` to its end; `listen` gets every event, `tick` is called about twice a second.

    KeyboardInterrupt stops the child first and then goes on to the caller.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="grbench-") as folder, log.open("wb") as errors:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(path)],  # -P: nothing is imported from the caller's folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**SETTINGS, **os.environ},
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops the child
        )
        try:
            timed_out = _listen(process, listen, tick, timeout, errors)
        finally:
            _stop(process)
    return End(process.returncode, timed_out, last_lines(log))


def _listen(
    process: subprocess.Popen[bytes],
    listen: Callable[[ChildMessage], None],
    tick: Callable[[], None],
    timeout: float | None,
    log: IO[bytes],
) -> bool:
    """Hands on events until the child is gone; true where it had to be stopped for the time it took.

    What something else writes into the child's pipe is a message like any other print: it goes to the log.
    """
    assert process.stdout is not None
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            # Workers that a killed child left behind may hold its pipe open: do not wait for them.
            if process.poll() is not None:
                return False
        else:
            if line is None:
                process.wait()
                return False
            if (event := _event(line)) is not None:
                listen(event)
            else:
                log.write(line)
                log.flush()
        tick()
        if deadline is not None and time.monotonic() > deadline:
            return True


def _event(line: bytes) -> ChildMessage | None:
    """The event that a line says; None where it is something else, or half of one."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and "event" in said else None


def _read(pipe: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    with pipe:
        for line in pipe:
            lines.put(line)
    lines.put(None)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the child and whatever it started: first asked, then forced."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def last_lines(path: Path, size: int = 4000) -> str:
    """The end of a text file, at most `size` bytes, from the start of a line."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        start = max(0, file.tell() - size)
        file.seek(start)
        text = file.read().decode(errors="replace")
    return (text.partition("\n")[2] if start else text).strip()


@contextlib.contextmanager
def terminated_is_interrupted() -> Iterator[None]:
    """Treats SIGTERM (a batch system's or CI's stop) as Ctrl-C while inside."""

    # The handler that Python installs for Ctrl-C raises KeyboardInterrupt whatever the signal.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
