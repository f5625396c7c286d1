"""What all clusters have in common: a cell is submitted to a scheduler, followed by the file of its events, and
submitted again where its node was lost."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from grbench.errors import RunError
from grbench.run.backends.backend import Backend, Machine, Needs, SiteRequest, Worker
from grbench.run.backends.child_process import TICK_SECONDS, ChildMessage, End, event_of
from grbench.run.backends.on_node import NodeEnd, NodeTask
from grbench.run.backends.shared_folder import marked

ATTEMPTS = 5
"""So often a cell is started whose nodes are lost."""
CHECK = "grbench.run.check_node"
"""What a node runs before a cell."""
STOP_SECONDS = 60.0
"""How long a cell on a node is waited for that was told to stop."""


@dataclass(frozen=True)
class Lost:
    """A cell's node, or what ran it there, ended without a result. how: in a clause; oom: because memory ran out there,
    so that it would again."""

    how: str
    oom: bool = False


class Submitted(Protocol):
    """A task that a scheduler was given."""

    def wait(self, seconds: float) -> NodeEnd | Lost | None:
        """How it ended; None where it has not after so many seconds. Raises RunError where it cannot be run at all."""

    def cancel(self) -> None:
        """Stops it as Ctrl-C does, or takes it out of the queue."""


class Scheduler(Protocol):
    """Of a cluster."""

    cpus: int
    """Of each cell."""

    def room(self) -> int:
        """How many cells may be submitted at once."""

    def limits(self, found: Mapping[str, int | None]) -> dict[str, int | None]:
        """As of a `Site`."""

    def check(self, needs: Mapping[str, Needs]) -> None:
        """Raises RunError where no node has what a cell needs. needs: {method: of a cell}."""

    def submit(self, task: NodeTask, needs: Needs) -> Submitted:
        """Raises RunError where the cluster takes no such task. Called from several threads."""

    def close(self) -> None:
        """Leaves the cluster."""


class EventFile:
    """The events of a cell on a node, read as they are written. A line that a lost node has left half written is
    none."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def new(self) -> Iterator[ChildMessage]:
        """Those that have come since. The file is opened anew each time, which is when NFS asks its server."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._at)
            *lines, _ = file.read().split(b"\n")
            for line in lines:
                self._at += len(line) + 1
                if (event := event_of(line)) is not None:
                    yield event


class NodeNeighbours:
    """What the node has said of what runs beside the cell there."""

    def __init__(self) -> None:
        self.heard: dict[str, Any] = {"cells": 0, "share": 0.0, "threads": 0}

    def facts(self) -> dict[str, Any]:
        """The latest."""
        return dict(self.heard)


class ClusterWorker:
    """Runs a cell wherever the scheduler has a place for it."""

    name = None

    def __init__(self, site: ClusterSite, needs: Needs, first: str | None) -> None:
        self.threads = site.scheduler.cpus
        self._site, self._needs, self._first = site, needs, first
        self._neighbours = NodeNeighbours()

    @contextmanager
    def beside(self, cache: Path, folder: Path) -> Iterator[NodeNeighbours]:
        """Counted on the node, where the cell runs."""
        self._neighbours = NodeNeighbours()
        yield self._neighbours

    def run(
        self,
        module: str,
        job: Mapping[str, Any],
        *,
        log: Path,
        listen: Callable[[ChildMessage], None],
        tick: Callable[[], None],
        timeout: float | None = None,
    ) -> End:
        """Runs the job on a node, and where that is lost, on another one (`Worker.run`)."""
        log = Path(os.path.abspath(log))
        log.parent.mkdir(parents=True, exist_ok=True)
        mark, how = self._site.mark(log.parent), ""
        for attempt in range(1, ATTEMPTS + 1):
            # Of a node that is only cut off, the last words go into a file that nobody reads any more.
            events = log.with_name(f"{log.stem}.{uuid.uuid4().hex[:8]}.events")
            task = NodeTask(
                module,
                job,
                self._first,
                self._site.modules,
                log,
                events,
                mark,
                Path.cwd(),
                self._site.cache,
                self.threads,
                timeout,
            )
            heard = set[str]()
            try:
                ended = self._follow(
                    self._site.scheduler.submit(task, self._needs), EventFile(events), heard, listen, tick
                )
            finally:
                events.unlink(missing_ok=True)
            if isinstance(ended, NodeEnd):
                if ended.end is None:
                    raise RunError(ended.refused)
                return ended.end
            if "recorded" in heard:  # it had done all that it should
                return End(0, False, "")
            how = ended.how
            if ended.oom:
                return End(-signal.SIGKILL, False, "", oom_killed=True, lost=how)
            if attempt < ATTEMPTS:
                listen({"event": "note", "text": f"{how}; it is started again elsewhere ({attempt + 1} of {ATTEMPTS})"})
        return End(-signal.SIGKILL, False, "", lost=f"{how}, for the {ATTEMPTS}th time")

    def _follow(
        self,
        submitted: Submitted,
        events: EventFile,
        heard: set[str],
        listen: Callable[[ChildMessage], None],
        tick: Callable[[], None],
    ) -> NodeEnd | Lost:
        """Hands on events until the cell has ended; what `listen` or `tick` raises stops it there first."""
        try:
            while True:
                ended = submitted.wait(TICK_SECONDS)
                for event in events.new():
                    heard.add(event["event"])
                    if event["event"] == "neighbours":
                        self._neighbours.heard = event["facts"]
                    else:
                        listen(event)
                if ended is not None:
                    return ended
                tick()
        except BaseException:
            submitted.cancel()
            deadline = time.monotonic() + STOP_SECONDS
            with contextlib.suppress(RunError):
                while submitted.wait(TICK_SECONDS) is None and time.monotonic() < deadline:
                    pass
            raise


class ClusterBackend:
    """Lends a worker for each cell that may be submitted; where and when it runs, the scheduler decides."""

    def __init__(self, site: ClusterSite) -> None:
        self._site, self._lock = site, threading.Lock()
        self._lent: list[Worker] = []

    def is_room(self, needs: Needs) -> bool:
        """Whether the scheduler is to be given another cell."""
        with self._lock:
            return len(self._lent) < self._site.at_once

    def take(self, needs: Needs) -> ClusterWorker:
        """A worker for a cell that is checked to be the same on its node as here."""
        worker = ClusterWorker(self._site, needs, CHECK)
        with self._lock:
            self._lent.append(worker)
        return worker

    def give_back(self, worker: Worker) -> None:
        """The worker's cell has ended."""
        with self._lock:
            self._lent = [each for each in self._lent if each is not worker]

    def close(self) -> None:
        """What was submitted has ended."""


class ClusterSite:
    """A cluster that was reached. modules: that the cells need besides the core."""

    def __init__(self, request: SiteRequest, scheduler: Scheduler, modules: tuple[str, ...]) -> None:
        self.scheduler, self.modules = scheduler, modules
        self.cache = None if request.cache is None else Path(os.path.abspath(request.cache))
        self._jobs = request.jobs
        self._marks, self._marked = dict[Path, Mapping[str, str]](), contextlib.ExitStack()
        self._lock = threading.Lock()

    @property
    def at_once(self) -> int:
        """How many cells are submitted at once."""
        return self._jobs or max(1, self.scheduler.room())

    def worker(self) -> ClusterWorker:
        """For what is done before the cells: nothing of what it needs is known."""
        return ClusterWorker(self, Needs(), None)

    def limits(self, found: Mapping[str, int | None]) -> dict[str, int | None]:
        """Of the largest node, as far as the scheduler knows it."""
        return self.scheduler.limits(found)

    def backend(self, machine: Machine, needs: Mapping[str, Needs]) -> Backend:
        """Lends workers. Raises RunError where no node has what a cell needs."""
        self.scheduler.check(needs)
        return ClusterBackend(self)

    def mark(self, folder: Path) -> Mapping[str, str]:
        """By which a node sees that the folder is shared (`require_shared`)."""
        with self._lock:
            if folder not in self._marks:
                self._marks[folder] = self._marked.enter_context(marked(folder))
            return self._marks[folder]

    def close(self) -> None:
        """Removes the marks and leaves the cluster."""
        self._marked.close()
        self.scheduler.close()
