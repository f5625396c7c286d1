"""The back-end of this machine: so many workers, which share its cores, its memory and its GPUs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grbench.cost.limits import THREADS, asked_threads, processor_limit
from grbench.run.backends.backend import Machine, Needs, SiteRequest, Worker
from grbench.run.backends.child_process import ChildMessage, End, ForkServer, run_child
from grbench.run.neighbours import Neighbours

GPUS = "CUDA_VISIBLE_DEVICES"


class LocalWorker:
    """Runs cells as children of a fork server, whose environment says what they may use.

    gpu: the place of its GPU among those that this run may use, None = the cell takes what it finds.
    """

    def __init__(
        self, server: ForkServer, *, name: str = "", threads: int | None = None, gpu: int | None = None
    ) -> None:
        self.name, self.threads, self.gpu = name, threads, gpu
        self._server = server

    def beside(self, cache: Path, folder: Path) -> Neighbours:
        """Counts what else this machine is at."""
        return Neighbours(cache, folder, self.threads)

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
        """Runs a cell in a child process (`Worker.run`)."""
        return run_child(self._server, module, job, log=log, listen=listen, tick=tick, timeout=timeout)

    def close(self) -> None:
        """Ends its server."""
        self._server.close()


class LocalBackend:
    """Lends as many workers as there are jobs.

    Of several, each has a fork server of its own. Its cells compute with cores / jobs threads, unless OMP_NUM_THREADS
    says how many, and see one GPU. With more jobs than GPUs, workers share them. Cells run beside each other as long as
    what they need together is there; one that needs more than the machine has, runs alone.

    server: of the run, which a single worker uses; several have servers like it. note: gets a line on what is unwise.
    """

    def __init__(
        self, jobs: int, server: ForkServer, machine: Machine, *, note: Callable[[str], None] = lambda _: None
    ) -> None:
        self._machine, self._lock = machine, threading.Lock()
        self._busy: dict[LocalWorker, Needs] = {}
        cores = max(1, int(processor_limit()))
        if jobs == 1:
            self._own = list[LocalWorker]()
            self._workers = [LocalWorker(server)]
            return
        if jobs > cores:
            note(f"note: --jobs {jobs}: more than the {cores} cores that there are; cells wait for each other")
        server.close()  # it has done its part, and would only take memory
        self._own = self._workers = [_worker(number, jobs, cores, server, machine) for number in range(jobs)]

    def is_room(self, needs: Needs) -> bool:
        """Whether a cell with these needs can start now."""
        return self._best(needs) is not None

    def take(self, needs: Needs) -> LocalWorker:
        """The free worker whose GPU the fewest cells use."""
        worker = self._best(needs)
        if worker is None:
            raise ValueError("there is no room for the cell")
        with self._lock:
            self._busy[worker] = needs
        return worker

    def give_back(self, worker: Worker) -> None:
        """The worker's cell has ended."""
        with self._lock:
            self._busy = {each: needs for each, needs in self._busy.items() if each is not worker}

    def close(self) -> None:
        """Ends the servers of the workers."""
        for worker in self._own:
            worker.close()

    def _best(self, needs: Needs) -> LocalWorker | None:
        with self._lock:
            busy = dict(self._busy)
        if busy and _exceeds([*busy.values(), needs], "ram", self._machine.ram):
            return None
        found: dict[LocalWorker, int] = {}
        for worker in self._workers:
            beside = [taken for other, taken in busy.items() if other.gpu == worker.gpu and worker.gpu is not None]
            limit = None if worker.gpu is None else self._machine.gpus[worker.gpu]
            if worker not in busy and not (beside and _exceeds([*beside, needs], "gpu", limit)):
                found[worker] = len(beside)
        return min(found, key=lambda worker: found[worker], default=None)


class LocalSite:
    """This machine. server: of the run."""

    def __init__(self, request: SiteRequest, server: ForkServer, *, note: Callable[[str], None] = lambda _: None):
        self.at_once = request.jobs or 1
        self._server, self._note = server, note

    def worker(self) -> LocalWorker:
        """One that has all of the machine."""
        return LocalWorker(self._server)

    def limits(self, found: Mapping[str, int | None]) -> dict[str, int | None]:
        """What was found here."""
        return dict(found)

    def backend(self, machine: Machine, needs: Mapping[str, Needs]) -> LocalBackend:
        """Lends workers that share the machine."""
        return LocalBackend(self.at_once, self._server, machine, note=self._note)

    def close(self) -> None:
        """The server is the run's."""


def _exceeds(needs: list[Needs], kind: str, limit: int | None) -> bool:
    return limit is not None and sum(getattr(each, kind) for each in needs) > limit


def _worker(number: int, jobs: int, cores: int, server: ForkServer, machine: Machine) -> LocalWorker:
    """Worker `number` (0 = first) of so many."""
    gpus = len(machine.gpus)
    gpu = number % gpus if gpus else None
    threads = asked_threads() or max(1, cores // jobs)
    settings = {THREADS: os.environ.get(THREADS) or str(threads)}
    name = f"job {number + 1}"
    if gpu is not None:
        visible = [each.strip() for each in os.environ.get(GPUS, "").split(",") if each.strip()]
        settings[GPUS] = visible[gpu] if visible else str(gpu)
        name += f", GPU {settings[GPUS]}"
    return LocalWorker(server.like(settings), name=name, threads=threads, gpu=gpu)
