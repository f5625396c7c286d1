"""The cells that run at the same time: each in a thread, which listens to its child."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from types import TracebackType
from typing import Self

from grbench.cache import cache_folder
from grbench.errors import OutputClosed, RunStopped, first_line
from grbench.results.claims import Claim
from grbench.results.record import Record
from grbench.run.attendant import Attendant
from grbench.run.backends.backend import Backend, Needs, Worker
from grbench.run.backends.child_process import TICK_SECONDS
from grbench.run.neighbours import Neighbours
from grbench.run.plan import PlannedCell


class CellPool:
    """A context in which cells are started, and which all of them have left in the end.

    What is raised inside, Ctrl-C above all, stops the cells that run as Ctrl-C does; their records say by what. What a
    cell raises (its result cannot be kept, or nobody reads the output) is raised by `wait` and `finish`.

    needs: {method: what a cell of it takes}.
    """

    def __init__(self, attendant: Attendant, backend: Backend, needs: Mapping[str, Needs]) -> None:
        self._attendant, self._backend, self._needs = attendant, backend, needs
        self._threads = ThreadPoolExecutor(max(1, len(attendant.plan.to_do)), "cell")  # started as they are needed
        self._running: dict[Future[Record], PlannedCell] = {}
        self._records: dict[str, Record] = {}
        self._stop: BaseException | type[BaseException] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt | OutputClosed):
            self._stop = kind if issubclass(kind, KeyboardInterrupt) else KeyboardInterrupt
        elif error is not None:
            self._stop = RunStopped(f"stopped with the run: {first_line(error)}")
        self._threads.shutdown()

    def is_room(self, planned: PlannedCell) -> bool:
        """Whether the cell can start now. Where models are kept, one that trains the same model as a cell that runs
        waits for that model."""
        if "weights" in self._attendant.request.keep:
            trained = {each.blank.training_digest for each in self._running.values()}
            if planned.blank.training_digest in trained:
                return False
        return self._backend.is_room(self._needs_of(planned))

    def start(self, planned: PlannedCell, claim: Claim) -> None:
        """Starts the cell, for which there is room; its claim is given back once its record is on the disk."""
        worker = self._backend.take(self._needs_of(planned))
        self._running[self._threads.submit(self._run, planned, claim, worker)] = planned

    def wait(self) -> bool:
        """Waits a moment for a cell to end; false where none runs."""
        if not self._running:
            return False
        ended, _ = wait_for(self._running, TICK_SECONDS, FIRST_COMPLETED)
        self._attendant.progress.tick()
        for future in ended:
            planned = self._running.pop(future)
            self._records[planned.blank.digest] = future.result()
        return True

    def finish(self) -> dict[str, Record]:
        """{digest: record} of all cells that were started, once they have ended."""
        while self.wait():
            pass
        return self._records

    def _needs_of(self, planned: PlannedCell) -> Needs:
        """What is known of it; nothing of a cell that is scored from lists, or trains nothing."""
        return Needs() if planned.source else self._needs.get(planned.cell.method.name, Needs())

    def _run(self, planned: PlannedCell, claim: Claim, worker: Worker) -> Record:
        plan, request = self._attendant.plan, self._attendant.request
        try:
            with claim, Neighbours(cache_folder(request.cache), plan.folder, worker.threads) as neighbours:
                return self._attendant.run(planned, worker, neighbours, tick=self._check)
        finally:
            self._backend.give_back(worker)

    def _check(self) -> None:
        """Raises in the thread of a cell what stops it."""
        if self._stop is not None:
            raise self._stop
