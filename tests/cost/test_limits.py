"""Limits of control groups, by files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from grbench.cost.limits import memory_limit, processor_limit

USABLE = len(os.sched_getaffinity(0))


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert memory_limit(nowhere, nowhere) == psutil.virtual_memory().total
    assert processor_limit(nowhere, nowhere) == USABLE


def test_the_narrowest_group_around_the_process_counts(tmp_path: Path) -> None:
    membership, mounted = tmp_path / "cgroup", tmp_path / "mounted"
    write(membership, "0::/job/step\n")
    write(mounted / "memory.max", "max\n")
    write(mounted / "job" / "memory.max", "300000000\n")
    write(mounted / "job" / "step" / "memory.max", "400000000\n")
    write(mounted / "another" / "memory.max", "1\n")
    write(mounted / "job" / "cpu.max", "50000 100000\n")
    write(mounted / "job" / "step" / "cpu.max", "max 100000\n")
    assert memory_limit(membership, mounted) == 300_000_000
    assert processor_limit(membership, mounted) == 0.5


def test_groups_of_version_1(tmp_path: Path) -> None:
    membership, mounted = tmp_path / "cgroup", tmp_path / "mounted"
    write(membership, "4:memory:/job\n")
    write(mounted / "memory" / "memory.limit_in_bytes", "200000000\n")
    write(mounted / "cpu" / "cpu.cfs_quota_us", "-1\n")
    write(mounted / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert memory_limit(membership, mounted) == 200_000_000
    assert processor_limit(membership, mounted) == USABLE
    write(mounted / "cpu" / "cpu.cfs_quota_us", "25000\n")
    assert processor_limit(membership, mounted) == 0.25
