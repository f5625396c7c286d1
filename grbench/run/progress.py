"""What a user sees while a suite runs: live bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any

from grbench.output import printable
from grbench.report.format import duration

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_SECONDS = 20.0
"""A plain log gets a line at least this often while something runs."""

PHASES = {
    "prepare": "opening the data",
    "fit tokenizer": "fitting the tokenizer",
    "train": "training",
    "search": "ranking the test users",
    "keep weights": "keeping the model",
    "keep longer lists": "ranking longer lists, to be kept",
}
"""What people are shown of a phase; one that is not here says itself what is done."""

LARGEST = 1e15
"""Values from here on are not shown: no count is so large, and arithmetic with them may overflow."""


class RunningCell:
    """How far one cell is. All times are seconds of one monotonic clock.

    position: among the cells of the run, 0 = first; began: when it did.
    """

    def __init__(self, position: int, began: float, name: str = "", phase: str = "starting") -> None:
        self.position, self.began, self.name = position, began, name
        self.fraction: float | None = None
        """Share of the present phase that is done, None where it is not known."""
        self._what: str | None = None
        self._figures: dict[str, Any] = {}
        self._enter(phase, began)

    def listen(self, event: dict[str, Any], now: float) -> None:
        """Takes in a child's event: `phase` names what begins, others say how far it is."""
        if event.get("event") == "phase":
            self._enter(str(event.get("name")), now)
            return
        if isinstance(what := event.get("what"), str):
            if event.get("event") == "fit":
                what = f"{PHASES['fit tokenizer']}: {what}"
            if what != self._what:
                self._what, self._figures = what, {}
        figures = {key: value for key, value in event.items() if _is_figure(value)}
        self._figures |= figures
        epoch, epochs, step, steps = (int(figures.get(key, 0)) for key in ("epoch", "epochs", "step", "steps"))
        done, total = (epoch - 1) * steps + step, epochs * steps
        if not epochs:
            done, total = (int(figures.get(key, 0)) for key in ("done", "total"))
        if total > 0:
            self.fraction = min(1.0, max(0.0, done / total))

    def left(self, estimate: float | None, now: float) -> float | None:
        """Seconds until it ends, None where nothing is known yet. estimate: of the whole cell."""
        if self.fraction:
            return (now - self._phase_began) * (1 - self.fraction) / self.fraction
        return None if estimate is None else max(0.0, estimate - (now - self.began))

    def text(self) -> str:
        """The present phase with its figures: `training, epoch 2/4, step 120/500, loss 5.1234, 1,520 users/s`."""
        figures, parts = self._figures, [self._what or PHASES.get(self._phase, self._phase)]
        for place, places in (("epoch", "epochs"), ("step", "steps")):
            if place in figures and places in figures:
                parts.append(f"{place} {figures[place]}/{figures[places]}")
        if "loss" in figures:
            parts.append(f"loss {figures['loss']:.4f}")
        rates = {"users_per_second": "users/s", "events_per_second": "events/s", "queries_per_second": "queries/s"}
        rates["megabytes_per_second"] = "MB/s"
        parts += [f"{figures[key]:,.0f} {unit}" for key, unit in rates.items() if figures.get(key)]
        done, total = figures.get("done"), figures.get("total")
        if "epoch" not in figures and done is not None and total != 1:  # of one thing, none is worth counting
            unit = " MB" if "megabytes_per_second" in figures else ""
            parts.append(f"{done:,}" + (f" of {total:,}{unit} ({done / total:.0%})" if total else ""))
        return printable(", ".join(parts))

    def _enter(self, phase: str, now: float) -> None:
        self._phase, self._phase_began, self.fraction = phase, now, None
        self._what, self._figures = "", dict[str, float]()


class RemainingTime:
    """How far the suite is and how long the rest will take. jobs: how many cells run at once.

    Where a position is left out, the cell is meant that began last.
    """

    def __init__(self, estimates: Sequence[float | None], jobs: int = 1) -> None:
        self._estimates, self._jobs = list(estimates), jobs
        self._running: dict[int, RunningCell] = {}
        self._last = RunningCell(0, 0.0)
        self._over: set[int] = set()
        self._waiting = False

    @property
    def shown(self) -> list[RunningCell]:
        """The cells that run, in the order in which they began, or what stands for those that are waited for."""
        return [self._last] if self._waiting else list(self._running.values())

    @property
    def done(self) -> int:
        """How many cells are over."""
        return self._last.position if self._jobs == 1 else len(self._over)

    @property
    def fraction(self) -> float:
        """Share of the present phase of the last cell that is done, 0 where it is not known."""
        return self._last.fraction or 0.0

    def start(self, position: int, now: float, name: str = "") -> None:
        """Cell `position` (0 = first) begins."""
        if self._jobs == 1:  # of one after another, the one before has ended
            self._over |= self._running.keys()
            self._running.clear()
        self._last = self._running[position] = RunningCell(position, now, name)
        self._waiting = False

    def listen(self, event: dict[str, Any], now: float, position: int | None = None) -> None:
        """Takes in an event of a cell's child."""
        self._cell(position).listen(event, now)

    def end(self, seconds: float, position: int | None = None) -> None:
        """The cell took so long; cells without an estimate are expected to take the mean of those known."""
        position = self._last.position if position is None else position
        self._estimates += [None] * (position + 1 - len(self._estimates))  # where it was not known how many there are
        self._estimates[position] = seconds
        self._running.pop(position, None)
        self._over.add(position)

    def leave_out(self, position: int) -> None:
        """Cell `position` was run elsewhere."""
        self._over.add(position)

    def wait(self, now: float, name: str = "") -> None:
        """Cells of others are waited for: how long they take is not known."""
        self._over |= self._running.keys()
        self._running.clear()
        self._last, self._waiting = RunningCell(self._last.position, now, name, "waiting"), True

    def cell_left(self, now: float, position: int | None = None) -> float | None:
        """Seconds until the cell ends, None where nothing is known yet."""
        cell = self._cell(position)
        if self._waiting:
            return None
        known = cell.position < len(self._estimates)
        return cell.left(self._estimates[cell.position] if known else None, now)

    def suite_left(self, now: float) -> float | None:
        """Seconds until the last cell ends, where each begins as soon as another one has ended."""
        if self._waiting:
            return None
        known = [seconds for seconds in self._estimates if seconds is not None]
        # The first cells have nobody to learn from: what they took so far and still need stands for the others.
        here = [(now - cell.began, self.cell_left(now, cell.position)) for cell in self._running.values()]
        known = known or [elapsed + left for elapsed, left in here if left is not None]
        if not known:
            return None
        usual = sum(known) / len(known)
        ends = [max(0.0, usual - elapsed) if left is None else left for elapsed, left in here]
        ends += [0.0] * (self._jobs - len(ends))
        heapq.heapify(ends)
        for position, seconds in enumerate(self._estimates):
            if position not in self._running and position not in self._over:
                heapq.heapreplace(ends, ends[0] + (usual if seconds is None else seconds))
        return max(ends)

    def text(self) -> str:
        """What the last cell is at."""
        return self._last.text()

    def _cell(self, position: int | None) -> RunningCell:
        return self._last if position is None else self._running.get(position, self._last)


def _is_figure(value: object) -> bool:
    """Whether it can be shown as a number: events come from other processes, and none may break the display."""
    return isinstance(value, int | float) and abs(value) < LARGEST  # not so for what is not a number


class PlainProgress:
    """Lines without control characters; one of each running cell at least every `every` seconds.

    Cells may tell it about themselves from several threads. Where they name no position, the cell is meant that began
    last.
    """

    def __init__(
        self, out: IO[str], *, every: float = PLAIN_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out, self._every, self._clock = out, every, clock
        self._remaining = RemainingTime([])
        self._waits_for = ""
        self._said = clock()
        self._lock = threading.RLock()

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        with self._lock:
            self._out.write(printable(text, "\n") + "\n")
            self._out.flush()
            self._said = self._clock()

    def plan(self, estimates: Sequence[float | None], jobs: int = 1) -> None:
        """The cells to do, with the seconds each is expected to take, and how many run at once."""
        with self._lock:
            self._remaining = RemainingTime(estimates, jobs)

    def start(self, name: str, position: int) -> None:
        """Cell `position` (0 = first) begins."""
        with self._lock:
            self._waits_for = ""
            self._remaining.start(position, self._clock(), name)

    def listen(self, event: dict[str, Any], position: int | None = None) -> None:
        """Takes in an event of the child of a cell."""
        with self._lock:
            self._remaining.listen(event, self._clock(), position)

    def tick(self) -> None:
        """Called about twice a second."""
        with self._lock:
            now = self._clock()
            if now - self._said < self._every:
                return
            cells, suite = self._remaining.shown, self._remaining.suite_left(now)
            for cell in cells:
                times = {"it": self._remaining.cell_left(now, cell.position)}
                if cell is cells[-1]:
                    times["the suite"] = suite
                known = [(duration(seconds), of) for of, seconds in times.items() if seconds is not None]
                left = ", ".join(f"{time} {'' if place else 'left '}for {of}" for place, (time, of) in enumerate(known))
                self.say(f"{cell.name}: {cell.text()}" + (f"; about {left}" if left else ""))

    def end(self, line: str, seconds: float, position: int | None = None) -> None:
        """The cell is over."""
        with self._lock:
            self._remaining.end(seconds, position)
            self.say(line)

    def leave_out(self, position: int, line: str) -> None:
        """Cell `position` was run elsewhere."""
        with self._lock:
            self._remaining.leave_out(position)
            self.say(line)

    def wait(self, name: str) -> None:
        """Nothing runs here; others are waited for. Said once for each name."""
        with self._lock:
            if name != self._waits_for:
                self._waits_for = name
                self._remaining.wait(self._clock(), name)
                self.say(name)

    def close(self) -> None:
        """Nothing more will come."""


class LiveProgress(PlainProgress):
    """Bars at the foot of a terminal, of the suite and of each running cell, under the lines of what has ended."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TaskID, TextColumn

        super().__init__(console.file, every=float("inf"))
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[status]}", markup=False),
            console=console,
            transient=True,
            auto_refresh=False,
        )
        self._suite = self._bars.add_task("suite", total=None, status="", visible=False)
        self._cells = dict[RunningCell, TaskID]()
        self._bars.start()

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        self._console.print(printable(text, "\n"), markup=False, highlight=False, emoji=False)

    def plan(self, estimates: Sequence[float | None], jobs: int = 1) -> None:
        """The cells to do, with the seconds each is expected to take, and how many run at once."""
        super().plan(estimates, jobs)
        self._bars.update(self._suite, total=len(estimates), visible=len(estimates) > 0)

    def start(self, name: str, position: int) -> None:
        """Cell `position` (0 = first) begins."""
        super().start(name, position)
        self._draw()

    def tick(self) -> None:
        """Redraws the bars."""
        self._draw()
        self._bars.refresh()

    def end(self, line: str, seconds: float, position: int | None = None) -> None:
        """The cell is over."""
        super().end(line, seconds, position)
        self._draw()

    def wait(self, name: str) -> None:
        """The same."""
        super().wait(name)
        self._draw()

    def close(self) -> None:
        """Takes the bars away."""
        self._bars.stop()

    def _draw(self) -> None:
        """Gives each running cell its bar, and takes away those of others."""
        with self._lock:
            now, shown = self._clock(), self._remaining.shown
            for cell in [each for each in self._cells if each not in shown]:
                self._bars.remove_task(self._cells.pop(cell))
            for cell in shown:
                if cell not in self._cells:
                    self._cells[cell] = self._bars.add_task(cell.name, total=None, status="")
                left = self._remaining.cell_left(now, cell.position)
                self._bars.update(
                    self._cells[cell],
                    total=1.0 if cell.fraction else None,
                    completed=cell.fraction or 0.0,
                    status=cell.text() + ("" if left is None else f", ETA {duration(left)}"),
                )
            suite = self._remaining.suite_left(now)
            self._bars.update(
                self._suite,
                completed=self._remaining.done,
                status="" if suite is None else f"ETA {duration(suite)}",
            )


def progress_for(console: Console) -> PlainProgress:
    """Bars on a terminal, lines in a file, a pipe or CI."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console.file)
