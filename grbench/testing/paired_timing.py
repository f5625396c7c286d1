"""Two pieces of work timed alternately.

The times of one machine say nothing on another, and a busy machine is slow for all that it does: what is compared is
the ratio of two pieces of work that took turns in one run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

Work = Callable[[], object]
"""What is timed: one call does it once, and waits for the device."""

Clock = Callable[[], float]
"""Seconds since some moment."""

SHORTEST = 0.02
"""Seconds of a turn; work that is shorter, or shorter than half the other side's, is done several times a turn."""
FEWEST_TURNS, MOST_TURNS = 5, 40
ATTEMPTS = 3


class Race:
    """The ratio compares the fastest turn of each side: the one that was disturbed least."""

    def __init__(self, measured: Work, yardstick: Work, *, clock: Clock = time.perf_counter) -> None:
        self.clock = clock
        self.works = {"measured": measured, "yardstick": yardstick}
        self.calls = dict.fromkeys(self.works, 1)
        self.seconds: dict[str, list[float]] = {side: [] for side in self.works}

    def warm_up(self, seconds: float) -> int:
        """How many turns fill about `seconds`, both sides together. Nothing of it counts."""
        took = {}
        for side, work in self.works.items():
            work()
            started = self.clock()
            work()
            took[side] = max(self.clock() - started, 1e-7)
        # A turn much shorter than the other side's would more easily find a moment without any disturbance.
        shortest = max(SHORTEST, max(took.values()) / 2)
        self.calls = {side: math.ceil(shortest / each) for side, each in took.items()}
        turn = sum(took[side] * calls for side, calls in self.calls.items())
        return min(max(int(seconds / turn), FEWEST_TURNS), MOST_TURNS)

    def take_turn(self, side: str) -> None:
        """Does the work of one side, `measured` or `yardstick`, and keeps the seconds of one call."""
        work, calls = self.works[side], self.calls[side]
        started = self.clock()
        for _ in range(calls):
            work()
        self.seconds[side].append((self.clock() - started) / calls)

    def holds(self, at_most: float) -> bool:
        """Whether the ratio is at most that. Where it seems not, both sides take their turns again, twice at most:
        what is too slow stays too slow, what was disturbed does not."""
        turns = len(self.seconds["measured"])
        for _ in range((ATTEMPTS - 1) * turns):
            if self.ratio <= at_most:
                break
            self.take_turn("yardstick")
            self.take_turn("measured")
        return self.ratio <= at_most

    @property
    def ratio(self) -> float:
        """The measured work's fastest turn over the yardstick's."""
        return min(self.seconds["measured"]) / max(min(self.seconds["yardstick"]), 1e-9)

    def figures(self) -> dict[str, float]:
        """The ratio and what it is made of."""
        fastest = {f"{side}_seconds": min(seconds) for side, seconds in self.seconds.items()}
        return {"ratio": self.ratio, **fastest, "turns": len(self.seconds["measured"])}


def race(benchmark: Any, measured: Work, yardstick: Work, *, seconds: float, clock: Clock = time.perf_counter) -> Race:
    """A race of about `seconds` under pytest-benchmark's fixture, whose statistics are those of the measured work.

    Where benchmarks are disabled each side has one turn, and the ratio means nothing.
    """
    run = Race(measured, yardstick, clock=clock)
    turns = run.warm_up(seconds) if benchmark.enabled else 1
    benchmark.pedantic(
        partial(run.take_turn, "measured"), setup=partial(run.take_turn, "yardstick"), rounds=turns, iterations=1
    )
    benchmark.extra_info.update(run.figures())
    return run
