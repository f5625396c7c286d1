"""The processes of a cell on several devices: one a rank, forked from the cell's child, which waits for them and says
which one has failed. A rank that fails ends the others, which would wait for it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from grbench.distributed import ranks
from grbench.errors import GRBenchError
from grbench.results.record import Status
from grbench.run.backends.child_process import last_lines, oom_kills
from grbench.run.failed_cell import status_of
from grbench.temporary import temporary_folder

GRACE_SECONDS = 2.0
"""How long the other ranks may still say what went wrong, once one has ended badly."""
LEAVE_SECONDS = 60.0
"""How long the other ranks may still run once one has ended well; they all leave together (`ranks.leave`)."""
STOP_SECONDS = 4.0
"""How long the first rank may write a checkpoint when the cell is stopped; less than the cell's child has."""

RankWork = Callable[[torch.device], int]
"""What each rank does, on its device; the exit status of the cell is the first rank's."""


class RankError(GRBenchError):
    """A rank failed. kind: the exception's name; status: of the cell's record; said: its traceback, or the last lines
    that it printed; curve: of the first rank, as far as it came."""

    def __init__(self, message: str, *, kind: str, status: Status, said: str, curve: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.kind, self.status, self.said, self.curve = kind, status, said, curve


@dataclass(frozen=True)
class _Failure:
    """What a rank that raised has left: when, by the machine's monotonic clock, and what."""

    time: float
    kind: str
    message: str
    status: Status
    traceback: str
    curve: list[dict[str, Any]]


def run_ranks(size: int, device: str, work: RankWork, *, curve: Callable[[], list[dict[str, Any]]] = list) -> int:
    """Runs `work` in so many processes and returns the first one's result. curve: what the failure of a rank is told
    with. Raises RankError where a rank fails, and KeyboardInterrupt where this process is stopped; all ranks have ended
    then.

    Nothing may have been computed in this process: a fork copies neither threads nor a GPU's context.
    """
    import torch.multiprocessing

    with temporary_folder() as folder:
        kills = oom_kills()
        arguments = (size, device, work, folder, curve)
        context = torch.multiprocessing.start_processes(  # type: ignore[attr-defined,no-untyped-call]
            _be_rank, arguments, nprocs=size, join=False, start_method="fork"
        )
        try:
            codes = _wait(context.processes)
        except KeyboardInterrupt:
            first = context.processes[0]
            with contextlib.suppress(ProcessLookupError):
                os.kill(first.pid, signal.SIGINT)
            first.join(STOP_SECONDS)
            raise
        finally:
            for process in context.processes:
                process.kill()
                process.join()
        if codes[0] == 0 and (folder / "result").is_file():
            return int((folder / "result").read_text())
        raise _failure(codes, size, device, folder, kills_before=kills)


def _wait(processes: list[Any]) -> list[int | None]:
    """The exit codes of all ranks; None of those that still run a while after another one has ended."""
    deadline, failed = math.inf, False
    while True:
        codes = [process.exitcode for process in processes]
        if any(codes) and not failed:
            deadline, failed = time.monotonic() + GRACE_SECONDS, True
        elif 0 in codes and deadline == math.inf:
            deadline = time.monotonic() + LEAVE_SECONDS
        if None not in codes or time.monotonic() > deadline:
            return codes
        running = [process.sentinel for process, code in zip(processes, codes, strict=True) if code is None]
        wait(running, timeout=None if deadline == math.inf else GRACE_SECONDS / 4)


def _failure(codes: list[int | None], size: int, device: str, folder: Path, *, kills_before: int | None) -> RankError:
    """What is said of the rank that failed first: one that died without a word, else the first that raised."""
    said = {
        rank: _Failure(**json.loads(file.read_text()))
        for rank in range(size)
        if (file := _left(folder, rank)).is_file()
    }
    curve = said[0].curve if 0 in said else []
    silent = [rank for rank, code in enumerate(codes) if code and rank not in said]
    if silent:
        rank, code = silent[0], codes[silent[0]] or 0
        kills = oom_kills()
        memory = code == -signal.SIGKILL and kills is not None and kills_before is not None and kills > kills_before
        status: Status = "oom" if memory else "killed" if code == -signal.SIGKILL else "error"
        how = (
            f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with exit status {code}"
        )
        how = "killed by the kernel, because memory ran out" if memory else how
        last = last_lines(_log(folder, rank)) if _log(folder, rank).is_file() else ""
        end = f"; its last line: {last.splitlines()[-1]}" if last else ""
        return RankError(
            f"{_name(rank, size, device)}: {how}{end}", kind="Killed", status=status, said=last, curve=curve
        )
    if not said:
        left = codes.index(0) if 0 in codes else 0
        message = f"{_name(left, size, device)}: ended before its work was done"
        return RankError(message, kind="Killed", status="error", said="", curve=curve)
    rank = min(said, key=lambda each: said[each].time)
    failure = said[rank]
    alike = len(said) == size and len({each.message for each in said.values()}) == 1
    message = failure.message if alike else f"{_name(rank, size, device)}: {failure.message}"
    return RankError(message, kind=failure.kind, status=failure.status, said=failure.traceback, curve=curve)


def _name(rank: int, size: int, device: str) -> str:
    return f"rank {rank} of {size} ({_device(device, rank)})"


def _device(device: str, rank: int) -> torch.device:
    return torch.device("cuda", rank) if torch.device(device).type == "cuda" else torch.device(device)


def _log(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.log"


def _left(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.json"


def _be_rank(  # noqa: PLR0917 - torch passes them by place
    rank: int, size: int, device: str, work: RankWork, folder: Path, curve: Callable[[], list[dict[str, Any]]]
) -> None:
    if rank:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first rank alone has something to keep
        with _log(folder, rank).open("wb", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    own = _device(device, rank)
    try:
        torch.set_num_threads(max(1, torch.get_num_threads() // size))
        if own.type == "cuda":
            torch.cuda.set_device(own)
        ranks.join(rank, size, own, folder / "meeting")
        code = work(own)
        if rank == 0:
            (folder / "result").write_text(str(code))
        ranks.leave()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may raise anything; the cell's child says so
        traceback.print_exc()
        _leave_word(folder, rank, error, curve())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # not through what waits for the other ranks


def _leave_word(folder: Path, rank: int, error: BaseException, curve: list[dict[str, Any]]) -> None:
    message = str(error) if isinstance(error, GRBenchError) else f"{type(error).__name__}: {error}"
    word: Mapping[str, Any] = {
        "time": time.monotonic(),
        "kind": type(error).__name__,
        "message": message,
        "status": status_of(error),
        "traceback": "".join(traceback.format_exception(error)),
        "curve": curve,
    }
    partial = folder / f"{rank}.partial"
    partial.write_text(json.dumps(word))
    partial.rename(_left(folder, rank))
