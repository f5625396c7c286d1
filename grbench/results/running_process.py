"""A process that is known by a file: whether it still runs, here or on another machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunningProcess:
    """host: its machine's name; boot: which start of which machine (and which container, where processes are numbered
    by container); process: its number; started: when it began, in the system's own unit, because numbers come again."""

    host: str
    boot: str
    process: int
    started: float

    @classmethod
    def this(cls) -> RunningProcess:
        """The process that asks."""
        number = os.getpid()
        return cls(platform.node(), _boot(), number, _started(number) or 0.0)

    @classmethod
    def from_json(cls, facts: Any) -> RunningProcess | None:
        """The process whose `to_json` gave these facts; None for anything else."""
        try:
            host, boot = facts["host"], facts["boot"]
            process, started = facts["process"], facts["started"]
        except (TypeError, KeyError, IndexError):
            return None
        texts = isinstance(host, str) and isinstance(boot, str)
        numbers = type(process) is int and process > 0 and isinstance(started, int | float)
        return cls(host[:100], boot, process, float(started)) if texts and numbers else None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready facts."""
        return {"host": self.host, "boot": self.boot, "process": self.process, "started": self.started}

    @property
    def here(self) -> bool:
        """Whether it is of this machine (and container), since its last start."""
        return (self.host, self.boot) == (platform.node(), _boot())

    def runs(self) -> bool | None:
        """Whether it runs; None where it is not of here, so that this is not known."""
        if not self.here:
            return None
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            return _started(self.process) in (None, self.started)
        except (OSError, OverflowError):
            return False
        return _started(self.process) == self.started


@cache
def _boot() -> str:
    """Empty where the system does not say: the machine's name and the time of the process's start have to do."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return ""


def _started(process: int) -> float | None:
    """Clock ticks since the machine started; where there is no /proc, seconds since 1970. None where the process does
    not run or is another user's that cannot be looked at."""
    try:
        after_name = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if after_name[0] == "Z" else float(after_name[19])
    except (OSError, IndexError, ValueError):
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        return float(psutil.Process(process).create_time())
    except psutil.Error:
        return None
