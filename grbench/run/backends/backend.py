"""The seam between a run and the places where its cells run.

A run decides the order, and claims, names and records its cells; a back-end knows its places and lends them. The run
asks whether there `is_room` for a cell and takes a worker. In a thread of its own it lets the worker `run` the cell's
job, hears its events meanwhile, and gives the worker back. So a cell that does not fit beside those that run waits,
and smaller ones may go before it.

What a back-end of several machines adds stays behind this seam. A worker that is lost with its machine is the
back-end's to replace: `run` starts the same job elsewhere, where the cell goes on from its checkpoint, and says so by
an event `note`. Only where that cannot be, it returns an `End` that says how the worker was lost, which becomes the
cell's record. Events arrive in order; those of an attempt that was lost need not be complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from grbench.run.backends.child_process import ChildMessage, End


@dataclass(frozen=True)
class SiteRequest:
    """What a run asks of the place where its work is done. name: in `BACKENDS`; folder: of the results; device: auto,
    cpu or cuda; cache: None = each machine's own; jobs: how many cells at most at once, None = one on this machine, as
    many as there is room for on a cluster; address: of a cluster; cpus: of each cell on a cluster, None = as its
    back-end says; options: for the scheduler of a cluster; oversize: take what is not expected to fit."""

    name: str
    folder: Path
    device: str = "auto"
    cache: Path | None = None
    jobs: int | None = None
    address: str | None = None
    cpus: int | None = None
    options: tuple[str, ...] = ()
    oversize: bool = False


@dataclass(frozen=True)
class Needs:
    """What a cell is expected to take. ram: bytes; gpu: bytes on each of its `devices`. What is not known is not in
    them."""

    ram: int = 0
    gpu: int = 0
    devices: int = 1


@dataclass(frozen=True)
class Machine:
    """What a run has found out about this machine. ram: bytes, None = not known; gpus: bytes of each one that cells may
    use, in CUDA's order."""

    ram: int | None = None
    gpus: tuple[int, ...] = ()


class Beside(Protocol):
    """What runs beside a cell, counted while it runs."""

    def facts(self) -> dict[str, Any]:
        """The record's `cost.beside` until now."""


class Worker(Protocol):
    """Runs one cell at a time."""

    @property
    def name(self) -> str | None:
        """Where it is, for lines of progress; "" where there is nothing to tell apart; None where an event `place` says
        its `name` once the cell has begun, and again where it begins anew elsewhere."""

    @property
    def threads(self) -> int | None:
        """How many threads a cell computes with there; None = as many as it would alone."""

    def beside(self, cache: Path, folder: Path) -> AbstractContextManager[Beside]:
        """A context for one cell, which counts what runs beside it where it runs. cache: this machine's; folder: of
        results."""

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
        """Runs `main(job, messages)` of the module to its end. `listen` gets every event; `tick` is called about twice
        a second. What either raises stops the cell, as Ctrl-C does, and goes on to the caller. timeout: seconds.

        Raises RunError where nothing can be started there.
        """


class Backend(Protocol):
    """Lends workers. The run calls all but `give_back` from one thread."""

    def is_room(self, needs: Needs) -> bool:
        """Whether a cell with these needs can start now. True for any cell where none runs."""

    def take(self, needs: Needs) -> Worker:
        """A worker for a cell for which there is room. It is the caller's until it is given back."""

    def give_back(self, worker: Worker) -> None:
        """The worker's cell has ended; called from any thread."""

    def close(self) -> None:
        """Ends what the back-end has started. No cell runs any more."""


class Site(Protocol):
    """Where a run's work is done: this machine, or a cluster that was reached."""

    @property
    def at_once(self) -> int:
        """How many cells run at once, as far as is known, to estimate how long they will take."""

    def worker(self) -> Worker:
        """For what is done before any cell, and for trials that run one after another."""

    def limits(self, found: Mapping[str, int | None]) -> dict[str, int | None]:
        """{ram, gpu}: bytes that one cell can have at most, None = not known. found: where the worker is."""

    def backend(self, machine: Machine, needs: Mapping[str, Needs]) -> Backend:
        """Lends workers for cells. needs: {method: what a cell of it takes}. Raises RunError where nothing here has
        what a cell needs."""

    def close(self) -> None:
        """Ends what was started, and leaves the cluster."""
