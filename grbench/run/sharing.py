"""Several runs on one folder: each cell is claimed before it is run, so that they share the work."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from grbench.errors import RunError
from grbench.report.format import counted
from grbench.results.claims import Claim, ClaimFile, claim
from grbench.results.integrity import with_altered
from grbench.results.record import Record
from grbench.results.record_files import finish_write, read_record, record_path

if TYPE_CHECKING:
    from grbench.run.plan import PlannedCell
    from grbench.run.progress import PlainProgress

POLL_SECONDS = 1.0
"""How often it is looked whether another run has ended a cell."""


def share(
    folder: Path,
    cells: Iterable[PlannedCell],
    progress: PlainProgress,
    *,
    is_room: Callable[[PlannedCell], bool] = lambda _: True,
    wait: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[PlannedCell, Claim | Record]]:
    """Each cell, as soon as this run has claimed it (the claim is then to be used as a context), or with the record
    that another run has written since the plan was made. Cells that others run come last; they are waited for, and are
    claimed once their run ended without a result.

    is_room: whether a cell can be started now; it is not claimed before. wait: lets the cells that this run is at go on
    for a while; false where it is at none, when there has to be room for any.

    Raises RunError where the folder cannot be written.
    """
    waiting = list(cells)
    while waiting:
        elsewhere: list[tuple[PlannedCell, ClaimFile]] = []
        left: list[PlannedCell] = []
        for planned in waiting:
            if not is_room(planned):
                left.append(planned)
                continue
            got = claim(folder, planned.blank.digest)
            if isinstance(got, ClaimFile):
                elsewhere.append((planned, got))
                left.append(planned)
            elif (record := made_meanwhile(folder, planned)) is not None:
                got.give_back()
                yield planned, record
            else:
                yield planned, got
        if len(left) == len(waiting) and not wait():
            _wait(elsewhere, progress)
        waiting = left


def made_meanwhile(folder: Path, planned: PlannedCell) -> Record | None:
    """The record that another run has written since the plan was made, which makes it needless to run the cell: not of
    one that was interrupted, or whose lists are gone or altered. Only for who has claimed the cell."""
    digest, former = planned.blank.digest, planned.former
    try:
        finish_write(folder, digest)
        record = with_altered(read_record(record_path(folder, digest)))
    except (OSError, RunError):  # there is none, or none that can be used
        return None
    known = former is not None and (record.checksum == former.checksum if record.checksum else record == former)
    if known or record.status == "interrupted" or (record.status == "ok" and not record.done):
        return None
    return record


def _wait(elsewhere: list[tuple[PlannedCell, ClaimFile]], progress: PlainProgress) -> None:
    """Waits a while, and says for whom."""
    first, held = elsewhere[0]
    more = f" and {counted(len(elsewhere) - 1, 'more cell')}" if len(elsewhere) > 1 else ""
    progress.wait(f"waiting for other runs: {first.name} ({held.where}){more}")
    deadline = time.monotonic() + POLL_SECONDS
    while time.monotonic() < deadline:
        progress.tick()
        time.sleep(min(0.5, POLL_SECONDS))


@contextlib.contextmanager
def alone(folder: Path, name: str, wait: Callable[[str], object]) -> Iterator[None]:
    """A context that one process at a time is in, of all that name the same folder and name; `wait` is told meanwhile
    who is. Where the folder cannot be written, nobody waits."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            got = claim(folder, name)
        except (OSError, RunError):
            yield
            return
        if isinstance(got, Claim):
            with got:
                yield
            return
        wait(got.where)
        time.sleep(POLL_SECONDS)
