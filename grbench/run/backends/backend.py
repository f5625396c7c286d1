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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from grbench.run.backends.child_process import ChildMessage, End


@dataclass(frozen=True)
class Needs:
    """The memory that a cell is expected to take, in bytes; what is not known of it is not in it."""

    ram: int = 0
    gpu: int = 0


@dataclass(frozen=True)
class Machine:
    """What a run has found out about this machine. ram: bytes, None = not known; gpus: bytes of each one that cells may
    use, in CUDA's order."""

    ram: int | None = None
    gpus: tuple[int, ...] = ()


class Worker(Protocol):
    """Runs one cell at a time."""

    @property
    def name(self) -> str:
        """Where it is, for lines of progress; "" where there is nothing to tell apart."""

    @property
    def threads(self) -> int | None:
        """How many threads a cell computes with there; None = as many as it would alone."""

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
