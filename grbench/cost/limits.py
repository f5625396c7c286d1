"""How much memory and processor time this process may have: of the machine, its control group, and its user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

THREADS = "OMP_NUM_THREADS"
MEMBERSHIP, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory_limit(membership: Path = MEMBERSHIP, mounted: Path = MOUNTED) -> int:
    """Bytes of RAM: the machine's, or what its control groups allow where that is less."""
    limit = psutil.virtual_memory().total
    files = [folder / "memory.max" for folder in _groups(membership, mounted)]
    for file in [*files, mounted / "memory" / "memory.limit_in_bytes"]:
        with suppress(OSError, ValueError):  # no such file, or `max`
            limit = min(limit, int(file.read_text()))
    return limit


def processor_limit(membership: Path = MEMBERSHIP, mounted: Path = MOUNTED) -> float:
    """Processors: those that this process may run on, or the share of them that its control groups allow, such as 1.5.

    A group of version 2 writes quota and period, in microseconds, into one file; one of version 1 into two.
    """
    limit = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    files = [(folder / "cpu.max",) for folder in _groups(membership, mounted)]
    old = mounted / "cpu"
    for group in [*files, (old / "cpu.cfs_quota_us", old / "cpu.cfs_period_us")]:
        with suppress(OSError, ValueError):
            quota, period = map(int, " ".join(file.read_text() for file in group).split())
            if quota > 0 and period > 0:  # -1 stands for none
                limit = min(limit, quota / period)
    return limit


def asked_threads() -> int | None:
    """The number that OMP_NUM_THREADS names; None where it names none."""
    first = os.environ.get(THREADS, "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _groups(membership: Path, mounted: Path) -> Iterator[Path]:
    """The folders of this process's control group of version 2 and of those around it."""
    own = ""
    with suppress(OSError, StopIteration):
        lines = membership.read_text().splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
    folder = mounted / own
    yield folder
    while folder != mounted and mounted in folder.parents:
        folder = folder.parent
        yield folder
