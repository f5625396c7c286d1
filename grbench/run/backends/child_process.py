"""Runs work in a child process, so that a crash or running out of memory affects only it.

Children are forked from a server (`grbench.run.backends.fork_server`) that has imported what they need. A child is a
module's `main(job, messages)`: it says what happens as JSON lines. The parent listens, keeps what the child (and
whatever a plug-in) prints in a log, and stops it with everything it started. The child leaves when the parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Self

from grbench.errors import RunError, Terminated
from grbench.temporary import temporary_folder

STOP_SECONDS = 5.0
"""How long a child may tidy up after it was asked to stop."""

TICK_SECONDS = 0.5

NUMBER = struct.Struct("q")
"""What the server answers with: 0 once it is ready, then for each request the child's process id and its exit status,
negative for the signal that killed it."""

ChildMessage = dict[str, Any]


@dataclass(frozen=True)
class End:
    """How a child ended. `code` is its exit status, negative for the signal that killed it; `log` its last lines.

    server_lost: the server ended while the child ran, which was stopped with it; `code` is then the server's.
    oom_killed: the child was killed by SIGKILL, and the kernel counted a kill for memory meanwhile (see `oom_kills`).
    lost: how the machine was lost that it ran on, or what there took care of it.
    """

    code: int
    timed_out: bool
    log: str
    server_lost: bool = False
    oom_killed: bool = False
    lost: str = ""

    @property
    def how(self) -> str:
        """For messages about a child that said nothing itself."""
        if self.lost:
            return self.lost
        if self.server_lost:
            return f"stopped, because the process that cells are forked from ended meanwhile (exit status {self.code})"
        if self.oom_killed:
            return "killed by the kernel, because memory ran out"
        if self.code < 0:
            return f"killed by signal {-self.code} ({signal.Signals(-self.code).name})"
        return f"the process ended with exit status {self.code} and without a result"


class ChildMessages:
    """The child's end of the pipe: `events("train", loss=1.5)` writes one JSON line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __call__(self, event: str, /, **values: Any) -> None:
        self._file.write(json.dumps({"event": event, **values}, default=float) + "\n")
        self._file.flush()


# Environment variables that libraries read when a process starts. A variable that the user has set is left as it is.
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


class ServerLostError(Exception):
    """The server has ended, with exit status `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the fork server ended with exit status {code}")
        self.code = code


class ForkServer:
    """The parent's end of the server, which serves one child at a time. It starts with the first one, and anew for the
    next one where it was lost.

    modules: what the server imports besides the core. Where it cannot fork with them (they start threads, open a GPU or
    end the process when they are imported), it goes without, `note` gets one line with the reason, and each child
    imports its own. settings: environment variables of the server and its children.
    """

    def __init__(
        self,
        modules: Sequence[str] = (),
        *,
        note: Callable[[str], None] = lambda _: None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._modules, self._note, self._settings = tuple(modules), note, dict(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket
        self._said: IO[bytes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def like(self, settings: Mapping[str, str]) -> ForkServer:
        """Another server of the same modules, with these settings too."""
        return ForkServer(self._modules, note=self._note, settings={**self._settings, **settings})

    @property
    def modules(self) -> tuple[str, ...]:
        """What it imports besides the core."""
        return self._modules

    @property
    def process_id(self) -> int:
        """The server's process; raises RuntimeError where it was never started."""
        if self._process is None:
            raise RuntimeError("the server starts with its first child")
        return self._process.pid

    def fork(self, module: str, job: Path, descriptors: Sequence[int]) -> int:
        """The process id, and process group, of a new child, which runs `main` of the module.

        descriptors: events (to write), alive (to read), log (to write). Raises RunError where the server cannot start.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        socket.send_fds(self._socket, [json.dumps([module, str(job)]).encode()], descriptors)
        return self.answer()

    def fileno(self) -> int:
        """What becomes readable when the child has ended, or the server."""
        return self._socket.fileno()

    def answer(self) -> int:
        """Waits for the next number that the server sends; raises ServerLostError where it has ended."""
        said = self._socket.recv(NUMBER.size, socket.MSG_WAITALL)
        if len(said) < NUMBER.size:
            assert self._process is not None
            raise ServerLostError(self._process.wait())
        number: int = NUMBER.unpack(said)[0]
        return number

    def stop(self, child: int) -> int:
        """The child's exit status; one that still runs is first asked to end, then forced, with whatever it started.

        Raises ServerLostError where the server has ended, and the child's exit status is unknown; the child is killed
        all the same.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not select.select([self], [], [], 0)[0]:
                os.kill(child, signal.SIGINT)
            if not select.select([self], [], [], STOP_SECONDS)[0]:
                os.killpg(child, signal.SIGKILL)
        try:
            return self.answer()
        except ServerLostError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
            raise

    def close(self) -> None:
        """Ends the server. It has nothing to tidy up, so it is not asked first."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.close()
            self._said.close()

    def _start(self) -> None:
        self.close()
        self._socket, theirs = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
        with theirs:
            self._process = self._spawn(theirs.fileno(), self._said.fileno())
        try:
            self.answer()
        except ServerLostError as error:
            self._said.seek(0)
            output = self._said.read().decode(errors="replace").strip()
            if not self._modules:
                remedy = "grbench doctor --thorough says which library cannot be imported, and how to mend it"
                raise RunError(f"{error}:\n{output}\n{remedy}") from error
            reason = ": ".join([str(error), *output.splitlines()[-1:]])
            self._note(f"note: every cell imports its plug-ins anew, which takes longer, because {reason}")
            self._modules = ()
            self._start()

    def _spawn(self, connection: int, output: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            # -P: nothing is imported from the caller's folder
            [sys.executable, "-P", "-m", "grbench.run.backends.fork_server", str(connection), *self._modules],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=server_environment(self._settings),
            pass_fds=[connection],
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops the child
        )


def server_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a server and its children."""
    # what cells print goes to a log, whatever the encoding of this process's terminal
    return {**SETTINGS, **os.environ, **settings, "PYTHONIOENCODING": "utf-8:backslashreplace"}


def run_child(
    server: ForkServer,
    module: str,
    job: Mapping[str, Any],
    *,
    log: Path,
    listen: Callable[[ChildMessage], None],
    tick: Callable[[], None],
    timeout: float | None = None,
) -> End:
    """Runs `main(job, messages)` of a module to its end; `listen` gets every event, `tick` is called about twice a
    second. timeout: seconds.

    KeyboardInterrupt stops the child first and then goes on to the caller. Raises RunError where no child can start.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # a link of that name, in a folder from somebody else, is not written through
    with temporary_folder() as folder, log.open("wb", buffering=0) as said:
        path = folder / "job.json"
        path.write_text(json.dumps(job))
        kills_before = oom_kills()
        events, events_end = os.pipe()
        alive_end, alive = os.pipe()
        # The child's ends are closed here, so that its pipe ends with it.
        with os.fdopen(events, "rb", buffering=0) as pipe, os.fdopen(alive, "wb"):
            with os.fdopen(events_end, "wb"), os.fdopen(alive_end, "rb"):
                child = server.fork(module, path, [events_end, alive_end, said.fileno()])
            try:
                timed_out = _listen(server, pipe, said, listen=listen, tick=tick, timeout=timeout)
            finally:
                try:
                    code, lost = server.stop(child), False
                except ServerLostError as error:
                    code, lost = error.code, True
    kills = oom_kills()
    counted = kills is not None and kills_before is not None and kills > kills_before
    oom_killed = counted and code == -signal.SIGKILL and not (timed_out or lost)
    return End(code, timed_out, last_lines(log), lost, oom_killed)


def oom_kills(cgroup: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int | None:
    """How many processes of this process's cgroup the kernel has killed so far because memory ran out.

    None where that is not known: without control groups of version 2, or where the system does not let it be read.
    """
    try:
        lines = cgroup.read_text().splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
        counts = dict(line.split() for line in (mounted / own / "memory.events").read_text().splitlines())
        return int(counts["oom_kill"])
    except (OSError, StopIteration, KeyError, ValueError):
        return None


def _listen(
    server: ForkServer,
    pipe: IO[bytes],
    log: IO[bytes],
    *,
    listen: Callable[[ChildMessage], None],
    tick: Callable[[], None],
    timeout: float | None,
) -> bool:
    """Hands on events until the child is gone; true where it has to be stopped for the time it took.

    What something else writes into the child's pipe is a message like any other print: it goes to the log.
    """
    os.set_blocking(pipe.fileno(), False)
    deadline = None if timeout is None else time.monotonic() + timeout
    rest = b""
    waiting: list[ForkServer | IO[bytes]] = [server, pipe]
    while True:
        ready = select.select(waiting, [], [], TICK_SECONDS)[0]
        # A child that has ended has written all that it will; processes that it left behind may hold its pipe open.
        ended = server in ready
        while said := pipe.read(1 << 16):
            *lines, rest = (rest + said).split(b"\n")
            for line in lines:
                if (event := event_of(line)) is not None:
                    listen(event)
                else:
                    log.write(line + b"\n")
        if said == b"" and pipe in waiting:  # closed, and not merely empty for now
            waiting.remove(pipe)
        if ended:
            return False
        tick()
        if deadline is not None and time.monotonic() > deadline:
            return True


def event_of(line: bytes) -> ChildMessage | None:
    """The event that a line says; None where it is something else."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and "event" in said else None


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
    """Treats SIGTERM (a batch system's or CI's stop) as Ctrl-C while inside, by raising Terminated. In another thread
    than the main one, which alone gets signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
