"""The cells of a plan that run at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from grbench.cache import cache_folder
from grbench.results.claims import Claim
from grbench.results.record import Record
from grbench.run.attendant import Attendant
from grbench.run.backends.backend import Backend, Needs, Worker
from grbench.run.plan import PlannedCell
from grbench.run.worker_pool import WorkerPool


class CellPool:
    """A context in which cells are started, and which all of them have left in the end.

    What is raised inside, Ctrl-C above all, stops the cells that run as Ctrl-C does; their records say by what. What a
    cell raises (its result cannot be kept, or nobody reads the output) is raised by `wait` and `finish`.

    needs: {method: what a cell of it takes}.
    """

    def __init__(self, attendant: Attendant, backend: Backend, needs: Mapping[str, Needs]) -> None:
        self._attendant, self._needs = attendant, needs
        self._pool = WorkerPool[Record](backend, len(attendant.plan.to_do), attendant.progress.tick)
        self._records: dict[str, Record] = {}

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, traceback)

    def is_room(self, planned: PlannedCell) -> bool:
        """Whether the cell can start now. Where models are kept, one that trains the same model as a cell that runs
        waits for that model."""
        if "weights" in self._attendant.request.keep and planned.blank.training_digest in self._pool.running:
            return False
        return self._pool.is_room(self._needs_of(planned))

    def start(self, planned: PlannedCell, claim: Claim) -> None:
        """Starts the cell, for which there is room; its claim is given back once its record is on the disk."""

        def work(worker: Worker, check: Callable[[], None]) -> Record:
            plan, request = self._attendant.plan, self._attendant.request
            with claim, worker.beside(cache_folder(request.cache), plan.folder) as beside:
                return self._attendant.run(planned, worker, beside, tick=check)

        self._pool.start(planned.blank.training_digest, self._needs_of(planned), work)

    def wait(self) -> bool:
        """Waits a moment for a cell to end; false where none runs."""
        ended = self._pool.wait()
        self._records |= {record.digest: record for record in ended or []}
        return ended is not None

    def finish(self) -> dict[str, Record]:
        """{digest: record} of all cells that were started, once they have ended."""
        while self.wait():
            pass
        return self._records

    def _needs_of(self, planned: PlannedCell) -> Needs:
        """What is known of it; nothing of a cell that is scored from lists, or trains nothing."""
        return Needs() if planned.source else self._needs.get(planned.cell.method.name, Needs())
