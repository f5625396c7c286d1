"""What a user sees while a suite runs: live bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

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


class RemainingTime:
    """How far the suite is and how long the rest will take. All times are seconds of one monotonic clock."""

    def __init__(self, estimates: Sequence[float | None]) -> None:
        self._estimates = list(estimates)
        self._position = 0
        self._began = 0.0
        self._phase = "starting"
        self._phase_began = 0.0
        self._fraction: float | None = None
        self._what = ""
        self._figures: dict[str, float] = {}
        self._over: set[int] = set()
        self._under_way = self._waiting = False

    @property
    def fraction(self) -> float:
        """Share of the present phase that is done, 0 where it is not known."""
        return self._fraction or 0.0

    def start(self, position: int, now: float) -> None:
        """Cell `position` (0 = first) begins."""
        if self._under_way:
            self._over.add(self._position)
        self._under_way, self._waiting = True, False
        self._position, self._began = position, now
        self._enter("starting", now)

    def listen(self, event: dict[str, Any], now: float) -> None:
        """Takes in a child's event: `phase` names what begins, others say how far it is."""
        if event.get("event") == "phase":
            self._enter(str(event.get("name")), now)
            return
        if isinstance(event.get("what"), str):
            self._what = event["what"]
        figures = {key: value for key, value in event.items() if _is_figure(value)}
        self._figures |= figures
        epoch, epochs, step, steps = (int(figures.get(key, 0)) for key in ("epoch", "epochs", "step", "steps"))
        done, total = (epoch - 1) * steps + step, epochs * steps
        if not epochs:
            done, total = (int(figures.get(key, 0)) for key in ("done", "total"))
        if total > 0:
            self._fraction = min(1.0, max(0.0, done / total))

    def end(self, seconds: float) -> None:
        """The present cell took so long; cells without an estimate are expected to take the mean of those known."""
        self._estimates[self._position] = seconds
        self._over.add(self._position)

    def leave_out(self, position: int) -> None:
        """Cell `position` was run elsewhere."""
        self._over.add(position)

    def wait(self, now: float) -> None:
        """Cells of others are waited for: how long they take is not known."""
        self._waiting = True
        self._enter("waiting", now)

    def cell_left(self, now: float) -> float | None:
        """Seconds until the present cell ends, None where nothing is known yet."""
        if self._waiting:
            return None
        if self._fraction:
            return (now - self._phase_began) * (1 - self._fraction) / self._fraction
        estimate = self._estimates[self._position] if self._estimates else None
        return None if estimate is None else max(0.0, estimate - (now - self._began))

    def suite_left(self, now: float) -> float | None:
        """Seconds until the last cell ends."""
        if self._waiting:
            return None
        known = [seconds for seconds in self._estimates if seconds is not None]
        usual = sum(known) / len(known) if known else None
        elapsed, here = now - self._began, self.cell_left(now)
        if here is None:
            if usual is None:
                return None
            here = max(0.0, usual - elapsed)
        # The first cell has nobody to learn from: what it took so far and still needs stands for the others.
        guess = elapsed + here if usual is None else usual
        left = [each for at, each in enumerate(self._estimates) if at != self._position and at not in self._over]
        return here + sum(guess if seconds is None else seconds for seconds in left)

    def text(self) -> str:
        """The present phase with its figures: `training, epoch 2/4, step 120/500, loss 5.1234, 1,520 users/s`."""
        figures, parts = self._figures, [self._what or PHASES.get(self._phase, self._phase)]
        for place, places in (("epoch", "epochs"), ("step", "steps")):
            if place in figures and places in figures:
                parts.append(f"{place} {figures[place]}/{figures[places]}")
        if "loss" in figures:
            parts.append(f"loss {figures['loss']:.4f}")
        rates = {"users_per_second": "users/s", "events_per_second": "events/s", "queries_per_second": "queries/s"}
        parts += [f"{figures[key]:,.0f} {unit}" for key, unit in rates.items() if figures.get(key)]
        done, total = figures.get("done"), figures.get("total")
        if "epoch" not in figures and done is not None and total != 1:  # of one thing, none is worth counting
            parts.append(f"{done:,}" + (f" of {total:,} ({done / total:.0%})" if total else ""))
        return printable(", ".join(parts))

    def _enter(self, phase: str, now: float) -> None:
        self._phase, self._phase_began, self._fraction = phase, now, None
        self._what, self._figures = "", {}


def _is_figure(value: object) -> bool:
    """Whether it can be shown as a number: events come from other processes, and none may break the display."""
    return isinstance(value, int | float) and abs(value) < LARGEST  # not so for what is not a number


class PlainProgress:
    """Lines without control characters; one at least every `every` seconds while something runs."""

    def __init__(
        self, out: IO[str], *, every: float = PLAIN_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out, self._every, self._clock = out, every, clock
        self._remaining = RemainingTime([])
        self._name = ""
        self._said = clock()

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        self._out.write(printable(text, "\n") + "\n")
        self._out.flush()
        self._said = self._clock()

    def plan(self, estimates: Sequence[float | None]) -> None:
        """The cells to do, with the seconds each is expected to take."""
        self._remaining = RemainingTime(estimates)

    def start(self, name: str, position: int) -> None:
        """Cell `position` (0 = first) begins."""
        self._name = name
        self._remaining.start(position, self._clock())

    def listen(self, event: dict[str, Any]) -> None:
        """Takes in an event of the child at work."""
        self._remaining.listen(event, self._clock())

    def tick(self) -> None:
        """Called about twice a second."""
        now = self._clock()
        if now - self._said >= self._every:
            cell, suite = self._remaining.cell_left(now), self._remaining.suite_left(now)
            times = {"it": cell, "the suite": suite}
            known = [(duration(seconds), of) for of, seconds in times.items() if seconds is not None]
            left = ", ".join(f"{time} {'' if place else 'left '}for {of}" for place, (time, of) in enumerate(known))
            self.say(f"{self._name}: {self._remaining.text()}" + (f"; about {left}" if left else ""))

    def end(self, line: str, seconds: float) -> None:
        """The cell is over."""
        self._remaining.end(seconds)
        self.say(line)

    def leave_out(self, position: int, line: str) -> None:
        """Cell `position` was run elsewhere."""
        self._remaining.leave_out(position)
        self.say(line)

    def wait(self, name: str) -> None:
        """Nothing runs here; others are waited for. Said once for each name."""
        if name != self._name:
            self._name = name
            self._remaining.wait(self._clock())
            self.say(name)

    def close(self) -> None:
        """Nothing more will come."""


class LiveProgress(PlainProgress):
    """Two bars at the foot of a terminal, suite and cell, under the lines of what has ended."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

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
        self._cell = self._bars.add_task("preparing", total=None, status="", visible=False)
        self._bars.start()

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        self._console.print(printable(text, "\n"), markup=False, highlight=False, emoji=False)

    def plan(self, estimates: Sequence[float | None]) -> None:
        """The cells to do, with the seconds each is expected to take."""
        super().plan(estimates)
        self._bars.update(self._suite, total=len(estimates), visible=len(estimates) > 0)

    def start(self, name: str, position: int) -> None:
        """Cell `position` (0 = first) begins."""
        super().start(name, position)
        self._bars.update(self._suite, completed=position)
        self._bars.update(self._cell, description=name, visible=True)

    def tick(self) -> None:
        """Redraws the bars."""
        now = self._clock()
        cell, suite = self._remaining.cell_left(now), self._remaining.suite_left(now)
        self._bars.update(
            self._cell,
            total=1.0 if self._remaining.fraction else None,
            completed=self._remaining.fraction,
            status=self._remaining.text() + ("" if cell is None else f", ETA {duration(cell)}"),
        )
        self._bars.update(self._suite, status="" if suite is None else f"ETA {duration(suite)}")
        self._bars.refresh()

    def end(self, line: str, seconds: float) -> None:
        """The cell is over."""
        super().end(line, seconds)
        self._bars.update(self._cell, visible=False)

    def wait(self, name: str) -> None:
        """The same."""
        super().wait(name)
        self._bars.update(self._cell, description="waiting", visible=True)

    def close(self) -> None:
        """Takes the bars away."""
        self._bars.stop()


def progress_for(console: Console) -> PlainProgress:
    """Bars on a terminal, lines in a file, a pipe or CI."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console.file)
