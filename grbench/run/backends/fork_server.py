"""The process that children are forked from: `python -P -m grbench.run.backends.fork_server SOCKET MODULE...`.

It imports once what they all need and then waits for requests on its socket. Each child is a fork of it, so that it
starts with everything imported. Nothing is computed here: a fork copies neither the threads of a pool that has started
nor a GPU's context. The other end is `grbench.run.backends.child_process.ForkServer`.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from grbench.run.backends.child_process import NUMBER, ChildMessages

CORE = ("grbench.run.run_cell", "grbench.run.prepare", "grbench.run.memory_trial", "grbench.data.store_writer")
# What cells import while they run. OpenBLAS (of numpy and scipy each) and jemalloc (pyarrow's) start a thread when they
# are imported, which they stop before a fork and start again after it; no other library's thread may run by then.
LIBRARIES = (
    *("pandas", "pyarrow.parquet", "pyarrow.pandas_compat", "pydantic.dataclasses", "pydantic.main"),
    *("pydantic.type_adapter", "scipy.linalg", "scipy.sparse"),
)

NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Makes torch count GPUs through NVML, which may be used before a fork; CUDA may not."""

REQUEST_BYTES = 1 << 16


def main(number: str, *modules: str) -> int:
    """Serves until the parent closes its end; exit status 1 where children cannot be forked with these modules."""
    connection = socket.socket(fileno=int(number))
    users_own = os.environ.get(NVML_CHECK)
    os.environ[NVML_CHECK] = "1"
    for module in (*CORE, *LIBRARIES):
        import_module(module)
    threads = _threads()
    for module in modules:
        try:
            import_module(module)
        except (Exception, SystemExit):  # noqa: BLE001 - a plug-in may raise anything; its cell will say so
            traceback.print_exc()
    if reason := _unfit(threads):
        print(f"importing {', '.join(modules)} {reason}", file=sys.stderr)  # noqa: T201 - read by the parent
        return 1
    if users_own is None:
        del os.environ[NVML_CHECK]
    else:
        os.environ[NVML_CHECK] = users_own
    gc.collect()
    gc.freeze()  # a child's collections then pass over what was imported, and leave its pages shared
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(NUMBER.pack(0))
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 3)
        if not request:
            return 0
        module, job = json.loads(request)
        child = os.fork()
        if child == 0:
            connection.close()
            os.setpgrp()
            _be_child(module, Path(job), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(child, child)  # in both processes, so that it is done whichever goes on first
        if not _serve(connection, child):
            return 0


def _serve(connection: socket.socket, child: int) -> bool:
    """Waits for the child and ends what it left running; false where the parent is gone."""
    try:
        connection.sendall(NUMBER.pack(child))
    except BrokenPipeError:
        return False  # the child notices it too
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    try:
        connection.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    except BrokenPipeError:
        return False
    return True


def _be_child(module: str, job: Path, descriptors: Sequence[int]) -> NoReturn:
    """Runs `main(job, messages)` of the module and ends this process as Python does, but for taking apart everything
    that was imported, which takes longer than many a cell."""
    code = 1
    try:
        try:
            code = import_module(module).main(json.loads(job.read_text()), _begin(*descriptors))
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:  # noqa: BLE001 - Ctrl-C too: it is said in the log, as Python says it
            traceback.print_exc()
        try:
            # Wakes the idle workers of executors and then waits for every thread that is not a daemon.
            threading._shutdown()  # type: ignore[attr-defined]
        except BaseException:  # noqa: BLE001 - Ctrl-C ends the waiting; what is registered at exit runs all the same
            traceback.print_exc()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)  # whatever was raised meanwhile: a child never goes on in the server's `main`


def _begin(events: int, alive: int, log: int) -> ChildMessages:
    """Lets prints go to the log, and the child leave with the parent, which alone holds the other end of `alive`."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it otherwise
    threading.Thread(target=_leave_with_parent, args=(alive,), daemon=True).start()
    return ChildMessages(os.fdopen(events, "w", encoding="utf-8"))


def _leave_with_parent(alive: int) -> None:
    while os.read(alive, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _threads() -> int:
    """Threads of this process, those of libraries included where the system lists them."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()


def _unfit(threads: int) -> str | None:
    """Why this process must not be forked any more; None where it may."""
    if _threads() > threads:
        return "starts threads, which a fork does not copy"
    descriptors = Path("/proc/self/fd")
    if descriptors.is_dir():
        for descriptor in descriptors.iterdir():
            with contextlib.suppress(OSError):  # the one that lists them is gone by now
                if os.readlink(descriptor).startswith("/dev/nvidia-uvm"):  # NVML opens others
                    return "starts CUDA, which a fork cannot share"
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
