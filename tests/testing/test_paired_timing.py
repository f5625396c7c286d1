from __future__ import annotations

import pytest

from grbench.testing.paired_timing import MOST_TURNS, SHORTEST, Race


class Clock:
    """Stands still but for the work that says how long it takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, *seconds: float):
        """Work that takes these seconds, call by call, and then the last of them for ever."""
        left = list(seconds)

        def do() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return do


def run(race: Race, turns: int) -> Race:
    for _ in range(turns):
        race.take_turn("yardstick")
        race.take_turn("measured")
    return race


def test_the_ratio_is_that_of_the_fastest_turns():
    clock = Clock()
    race = run(Race(clock.work(3, 9, 4), clock.work(2, 1, 5), clock=clock), 3)
    assert race.seconds == {"measured": [3, 9, 4], "yardstick": [2, 1, 5]}
    assert race.ratio == 3.0
    assert race.figures() == {"ratio": 3.0, "measured_seconds": 3, "yardstick_seconds": 1, "turns": 3}


def test_the_first_call_does_not_count_and_the_second_sets_the_turns():
    clock = Clock()
    race = Race(clock.work(100, 0.5), clock.work(100, 1.5), clock=clock)
    assert race.warm_up(seconds=25) == 10
    assert race.seconds == {"measured": [], "yardstick": []}


def test_short_work_is_done_several_times_a_turn():
    clock = Clock()
    race = Race(clock.work(SHORTEST / 4), clock.work(SHORTEST), clock=clock)
    race.warm_up(seconds=1)
    assert race.calls == {"measured": 4, "yardstick": 1}
    assert run(race, 2).ratio == pytest.approx(1 / 4)


def test_neither_turn_is_much_shorter_than_the_other():
    clock = Clock()
    race = Race(clock.work(8), clock.work(1), clock=clock)
    assert race.warm_up(seconds=72) == 6
    assert race.calls == {"measured": 1, "yardstick": 4}
    assert run(race, 2).ratio == 8


def test_work_without_any_length_has_turns_all_the_same():
    race = Race(lambda: None, lambda: None, clock=Clock())
    assert race.warm_up(seconds=1e9) == MOST_TURNS


def test_what_is_too_slow_stays_too_slow():
    clock = Clock()
    race = run(Race(clock.work(2), clock.work(1), clock=clock), 5)
    assert race.holds(2.0)
    assert len(race.seconds["measured"]) == 5
    assert not race.holds(1.99)
    assert len(race.seconds["measured"]) == len(race.seconds["yardstick"]) == 15


def test_what_was_only_disturbed_gets_another_chance():
    clock = Clock()
    race = run(Race(clock.work(8, 8, 8, 1), clock.work(1), clock=clock), 3)
    assert race.ratio == 8
    assert race.holds(1.5)
    assert len(race.seconds["measured"]) == 4
