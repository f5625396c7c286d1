"""One process that has imported torch and the other libraries, from which the tests' fork servers are forked.

A run in a test otherwise waits for seconds until its fork server has imported them again. The server is the real one,
`grbench.run.backends.fork_server.main`, with the environment and the modules that it was asked for; only the start of
its interpreter is left out. Tests of that start are marked `own_fork_server`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

SIZE = struct.Struct("=Q")
"""A request is its length, sent with the descriptors, and JSON; an answer is a number."""


class ImportedLibraries:
    """The tests' end of the process. It starts with the first request."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket
        self._lock = threading.Lock()  # jobs of a run start their servers at once

    def server(
        self, modules: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]
    ) -> ForkedServer:
        """A new fork server. descriptors: its socket, its output."""
        wanted = {"modules": list(modules), "environment": dict(environment), "folder": str(Path.cwd())}
        return ForkedServer(self, self.ask(wanted, descriptors))

    def ask(self, request: Mapping[str, object], descriptors: Sequence[int] = ()) -> int:
        with self._lock:
            if self._process is None:
                self._start()
            text = json.dumps(request).encode()
            socket.send_fds(self._socket, [SIZE.pack(len(text))], descriptors)
            self._socket.sendall(text)
            answer: int = SIZE.unpack(received(self._socket, SIZE.size))[0]
            return answer

    def close(self) -> None:
        if self._process is not None:
            self._socket.close()
            self._process.wait()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=self._environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )


class ForkedServer:
    """A fork server, as `subprocess.Popen` would show it."""

    def __init__(self, origin: ImportedLibraries, pid: int) -> None:
        self.pid = pid
        self._origin = origin
        self._ended = os.pidfd_open(pid)
        self._code: int | None = None

    def poll(self) -> int | None:
        return self.wait() if self._code is not None or select.select([self._ended], [], [], 0)[0] else None

    def kill(self) -> None:
        if self._code is None:
            signal.pidfd_send_signal(self._ended, signal.SIGKILL)

    def wait(self) -> int:
        if self._code is None:
            select.select([self._ended], [], [])
            os.close(self._ended)
            self._code = os.waitstatus_to_exitcode(self._origin.ask({"ended": self.pid}))
        return self._code


def received(connection: socket.socket, size: int) -> bytes:
    said = connection.recv(size, socket.MSG_WAITALL)
    if len(said) < size:
        raise EOFError("the process with the imported libraries has ended")
    return said


def main(number: str) -> None:
    from grbench.run.backends import fork_server

    connection = socket.socket(fileno=int(number))
    for module in (*fork_server.CORE, *fork_server.LIBRARIES):
        import_module(module)
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    installed = [folder for folder in sys.path if folder not in own]
    while True:
        size, descriptors, _, _ = socket.recv_fds(connection, SIZE.size, 2)
        if not size:
            return
        request = json.loads(received(connection, SIZE.unpack(size)[0]))
        if "ended" in request:
            answer = os.waitpid(request["ended"], 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                connection.close()
                be_server(request, installed, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(SIZE.pack(answer))


def be_server(request: Mapping[str, object], installed: Sequence[str], connection: int, output: int) -> None:
    """What starting `python -P -m grbench.run.backends.fork_server` does, but for the interpreter and its imports."""
    from grbench.run.backends import fork_server

    code = 1
    try:
        os.setsid()
        for standard in (1, 2):
            os.dup2(output, standard)
        os.close(output)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *installed]
        code = fork_server.main(str(connection), *request["modules"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
