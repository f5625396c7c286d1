"""Work of a run that is done at the same time: each piece in a thread with a worker of the back-end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from types import TracebackType
from typing import Generic, Self, TypeVar

from grbench.errors import OutputClosed, RunStopped, first_line
from grbench.run.backends.backend import Backend, Needs, Worker
from grbench.run.backends.child_process import TICK_SECONDS

T = TypeVar("T")
PoolWork = Callable[[Worker, Callable[[], None]], T]
"""Is given a worker, and what is to be called about twice a second, which raises where it is to stop."""


class WorkerPool(Generic[T]):
    """A context in which work is started, and which all of it has left in the end.

    What is raised inside, Ctrl-C above all, stops what runs as Ctrl-C does. What the work itself raises is raised by
    `wait`. most: threads; tick: called about twice a second while something is waited for.
    """

    def __init__(self, backend: Backend, most: int, tick: Callable[[], None] = lambda: None) -> None:
        self._backend, self._tick = backend, tick
        self._threads = ThreadPoolExecutor(max(1, most), "worker")  # started as they are needed
        self._running: dict[Future[T], str] = {}
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

    @property
    def running(self) -> list[str]:
        """The keys of what runs."""
        return list(self._running.values())

    def is_room(self, needs: Needs) -> bool:
        """Whether work with these needs can start now."""
        return self._backend.is_room(needs)

    def start(self, key: str, needs: Needs, work: PoolWork[T]) -> None:
        """Starts work, for which there is room. key: need not be its own."""
        worker = self._backend.take(needs)
        self._running[self._threads.submit(self._run, worker, work)] = key

    def wait(self) -> list[T] | None:
        """Waits a moment; the results of what has ended. None where nothing runs."""
        if not self._running:
            return None
        ended, _ = wait_for(self._running, TICK_SECONDS, FIRST_COMPLETED)
        self._tick()
        for future in ended:
            del self._running[future]
        return [future.result() for future in ended]

    def _run(self, worker: Worker, work: PoolWork[T]) -> T:
        try:
            return work(worker, self._check)
        finally:
            self._backend.give_back(worker)

    def _check(self) -> None:
        """Raises in a thread what stops it."""
        if self._stop is not None:
            raise self._stop
