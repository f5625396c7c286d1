"""What else runs on this machine while a cell does: other cells slow it down, so its record says so.

Each run marks each cell that it runs by a file in `<cache>/running`, and looks once a second at the other marks; and
every ten seconds at the claims in its folder of results, whose holders may have another cache. So it sees all runs of
this user with this cache and all that share the folder, and may miss a cell that takes less than a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from grbench.errors import RunError
from grbench.results.claims import claims_in
from grbench.results.running_process import RunningProcess

LOOK_SECONDS = 1.0
CLAIMS_EVERY = 10
"""Looks between two at the claims."""


class Neighbours:
    """A context that marks that something is computed, and meanwhile counts what else is, by this process too.

    cache: folder of the marks; folder: of results, whose claims are looked at, None = none are; threads: how many it is
    computed with, None = those of this process.
    """

    def __init__(self, cache: Path, folder: Path | None = None, threads: int | None = None) -> None:
        self._marks, self._folder, self._this = cache / "running", folder, RunningProcess.this()
        self._given = threads
        self._mark = self._marks / f"{uuid.uuid4().hex}.json"
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._looking = threading.Thread(target=self._look_again, daemon=True)
        self._looks, self._most, self._threads = 0, 0, 0
        self._marked, self._claiming = set[int](), set[int]()
        self._began = self._last = time.monotonic()
        self._shared, self._had_others = 0.0, False

    def __enter__(self) -> Self:
        facts = {**self._this.to_json(), "threads": self._given or _threads()}
        with contextlib.suppress(OSError):  # a cache that cannot be written costs others the knowledge of this process
            self._marks.mkdir(parents=True, exist_ok=True)
            self._mark.write_text(json.dumps(facts))
        self._look()
        self._looking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._looking.join()
        with contextlib.suppress(OSError):
            self._mark.unlink()

    def facts(self) -> dict[str, Any]:
        """The record's `cost.beside`: {cells: the most others at a time, share: of the time until now in which there
        were any, threads: the most that these were given together}."""
        self._look()
        whole = self._last - self._began
        share = self._shared / whole if whole > 0 else float(self._had_others)
        return {"cells": self._most, "share": share, "threads": self._threads}

    def _look_again(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        with self._lock:
            marked = _others(self._marks, self._mark)
            self._marked |= {process for process, _ in marked}
            if self._looks % CLAIMS_EVERY == 0:
                self._claiming = _claiming(self._folder, self._this)
            self._looks += 1
            # Of who marks what it runs, the marks alone count: they are looked at more often.
            threads = [each for _, each in marked]
            others = len(self._claiming - self._marked) + len(marked)
            moment = time.monotonic()
            if others or self._had_others:
                self._shared += moment - self._last
            self._last, self._had_others = moment, others > 0
            self._most, self._threads = max(self._most, others), max(self._threads, sum(threads))


def joined(
    earlier: Mapping[str, Any] | None, now: Mapping[str, Any], earlier_seconds: float, seconds: float
) -> dict[str, Any]:
    """`cost.beside` of a cell that takes over the training of another one. earlier: the other's, None where nothing is
    known of it; now: the cell's own; earlier_seconds, seconds: how long each took."""
    if earlier is None:
        return dict(now)
    whole = earlier_seconds + seconds
    share = (earlier["share"] * earlier_seconds + now["share"] * seconds) / whole if whole > 0 else now["share"]
    return {"share": share, **{key: max(earlier[key], now[key]) for key in ("cells", "threads")}}


def _claiming(folder: Path | None, this: RunningProcess) -> set[int]:
    """Processes of this machine that hold a claim in the folder."""
    if folder is None:
        return set()
    try:
        holders = [claim.holder for claim in claims_in(folder).values()]
    except (OSError, RunError):  # the cells of others are then unknown; the own one goes on
        return set()
    return {holder.process for holder in holders if holder is not None and holder != this and holder.runs()}


def _others(marks: Path, own: Path) -> list[tuple[int, int]]:
    """(process of this machine, threads that it was given) of each mark but the own one. Marks of dead processes are
    removed."""
    found: list[tuple[int, int]] = []
    with contextlib.suppress(OSError):  # there is no such folder, or it cannot be read: nobody is seen
        for entry in os.scandir(marks):
            if entry.name == own.name:
                continue
            try:
                facts = json.loads(Path(entry.path).read_bytes())
            except (OSError, ValueError):  # just removed, or just being written
                continue
            process = RunningProcess.from_json(facts)
            if process is None or not process.here:
                continue
            if process.runs():
                threads = facts.get("threads")
                found.append((process.process, threads if type(threads) is int and threads > 0 else 0))
            else:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
    return found


def _threads() -> int:
    """How many threads a cell of this process computes with."""
    with contextlib.suppress(ValueError):
        return max(1, int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
