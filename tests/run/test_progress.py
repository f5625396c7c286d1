"""How far, how fast, how long still: worked out by hand on a clock of our own."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from grbench.report.format import duration
from grbench.run.progress import LiveProgress, PlainProgress, RemainingTime, progress_for

TRAINING = {
    "event": "train",
    "epoch": 2,
    "epochs": 4,
    "step": 50,
    "steps": 100,
    "loss": 1.5,
    "users_per_second": 1520.4,
    "events_per_second": 138_000.0,
}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_left_of_a_cell_follows_from_what_is_done() -> None:
    left = RemainingTime([None, None])
    left.start(0, 0.0)
    assert left.cell_left(5.0) is None
    assert left.suite_left(5.0) is None
    left.listen({"event": "phase", "name": "train"}, 10.0)
    left.listen(TRAINING, 40.0)  # 150 of 400 steps in 30 seconds, so 50 more
    assert left.fraction == 0.375
    assert left.cell_left(40.0) == pytest.approx(50.0)
    # the next cell should take as long as this one: 40 seconds so far and 50 more
    assert left.suite_left(40.0) == pytest.approx(50.0 + 90.0)


def test_former_times_are_the_estimate_until_there_is_a_better_one() -> None:
    left = RemainingTime([100.0, None, 60.0])
    left.start(0, 0.0)
    assert left.cell_left(30.0) == 70.0
    assert left.suite_left(30.0) == 70.0 + 80.0 + 60.0  # the unknown one: the mean of those known
    assert left.cell_left(130.0) == 0.0
    left.end(40.0)
    left.start(1, 40.0)
    assert left.cell_left(50.0) is None
    assert left.suite_left(50.0) == 40.0 + 60.0  # the mean of 40 and 60 less 10, then the third
    left.start(2, 80.0)
    assert left.suite_left(90.0) == 50.0


def test_cells_that_others_run_are_not_counted_and_those_waited_for_are_not_known() -> None:
    left = RemainingTime([100.0, 10.0, 60.0])
    left.leave_out(1)
    left.start(2, 0.0)  # the first cell is another run's for now
    assert left.suite_left(20.0) == 40.0 + 100.0
    left.end(60.0)
    left.wait(60.0)
    assert left.cell_left(70.0) is None
    assert left.suite_left(70.0) is None
    assert left.text() == "waiting"
    left.start(0, 70.0)
    assert left.suite_left(80.0) == 90.0


def test_who_is_waited_for_is_said_once() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    for _ in range(3):
        progress.wait("waiting for other runs: a, seed 0 (process 4 on node3)")
    progress.leave_out(0, "a, seed 0: another run has run it, ok")
    assert out.getvalue().count("waiting") == 1
    assert "another run has run it" in out.getvalue()


def test_the_figures_of_a_phase_in_a_line() -> None:
    left = RemainingTime([None])
    left.start(0, 0.0)
    assert left.text() == "starting"
    left.listen({"event": "phase", "name": "train"}, 0.0)
    left.listen(TRAINING, 1.0)
    assert left.text() == "training, epoch 2/4, step 50/100, loss 1.5000, 1,520 users/s, 138,000 events/s"
    left.listen({"event": "phase", "name": "search"}, 2.0)
    assert left.text() == "ranking the test users"
    left.listen({"event": "search", "done": 512, "total": 2048, "queries_per_second": 900.0}, 3.0)
    assert left.text() == "ranking the test users, 900 queries/s, 512 of 2,048 (25%)"
    assert left.cell_left(3.0) == pytest.approx(3.0)
    left.listen({"event": "prepare", "what": "reading seq", "done": 7, "total": None}, 4.0)
    assert left.text().startswith("reading seq")


def test_a_copy_is_counted_in_megabytes_and_what_follows_is_not() -> None:
    left = RemainingTime([None])
    left.start(0, 0.0)
    left.listen({"event": "phase", "name": "prepare"}, 0.0)
    copying = {"what": "copying s3://b/x", "done": 1500, "total": 6000, "megabytes_per_second": 75.2}
    left.listen({"event": "prepare", **copying}, 20.0)
    assert left.text() == "copying s3://b/x, 75 MB/s, 1,500 of 6,000 MB (25%)"
    assert left.cell_left(20.0) == 60.0
    left.listen({"event": "prepare", "what": "seq", "done": 10, "total": 40}, 30.0)
    assert left.text() == "seq, 10 of 40 (25%)"


def test_a_log_is_never_silent_for_long() -> None:
    out, clock = io.StringIO(), Clock()
    progress = PlainProgress(out, every=20.0, clock=clock)
    progress.plan([None])
    progress.start("[1/1] baseline, seed 0", 0)
    progress.listen({"event": "phase", "name": "train"})
    for second in range(1, 61):
        clock.now = float(second)
        if second == 30:
            progress.listen(TRAINING)
        progress.tick()
    progress.end("[1/1] baseline, seed 0: ok", 60.0)
    assert out.getvalue().splitlines() == [
        "[1/1] baseline, seed 0: training",
        "[1/1] baseline, seed 0: training, epoch 2/4, step 50/100, loss 1.5000, 1,520 users/s, 138,000 events/s; "
        "about 1 min 07 s left for it, 1 min 07 s for the suite",
        "[1/1] baseline, seed 0: training, epoch 2/4, step 50/100, loss 1.5000, 1,520 users/s, 138,000 events/s; "
        "about 1 min 40 s left for it, 1 min 40 s for the suite",
        "[1/1] baseline, seed 0: ok",
    ]


def test_a_terminal_gets_bars_and_a_pipe_lines() -> None:
    piped = progress_for(Console(file=io.StringIO(), force_terminal=False))
    assert type(piped) is PlainProgress
    out = io.StringIO()
    live = progress_for(Console(file=out, force_terminal=True, width=160))
    assert isinstance(live, LiveProgress)
    live.plan([None, None])
    live.start("[1/2] baseline, seed 0", 0)
    live.listen({"event": "phase", "name": "train"})
    live.listen(TRAINING)
    live.tick()
    live.end("[1/2] baseline, seed 0: ok", 60.0)
    live.close()
    shown = out.getvalue()
    assert "loss 1.5000, 1,520 users/s, 138,000 events/s, ETA" in shown
    assert "[1/2] baseline, seed 0: ok" in shown


def test_a_validation_is_shown_where_training_stands() -> None:
    left = RemainingTime([None])
    left.start(0, 0.0)
    left.listen({"event": "phase", "name": "train"}, 0.0)
    left.listen({"event": "validate", "epoch": 2, "epochs": 4, "ndcg@10": 0.5}, 1.0)
    assert left.text() == "training, epoch 2/4"
    left.listen({"event": "validate", "epoch": 2, "epochs": 4, "step": 100, "steps": 100, "ndcg@10": 0.5}, 1.0)
    assert left.text() == "training, epoch 2/4, step 100/100"
    assert left.fraction == 0.5


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers()))
KEYS = ("name", "what", "epoch", "epochs", "step", "steps", "done", "total", "loss", "users_per_second", "ndcg@10")
EVENTS = st.fixed_dictionaries(
    {}, optional={"event": st.sampled_from(["phase", "train", "validate", "new"]), **dict.fromkeys(KEYS, VALUES)}
)


@given(events=st.lists(EVENTS, max_size=4), seconds=st.floats(0, 1e6))
@settings(deadline=None)
def test_no_event_breaks_the_display(events: list[dict[str, Any]], seconds: float) -> None:
    clock = Clock()
    progress = PlainProgress(io.StringIO(), every=0.0, clock=clock)
    progress.plan([None, None])
    progress.start("[1/2] baseline, seed 0", 0)
    for event in events:
        clock.now += seconds
        progress.listen(event)
        progress.tick()


def test_durations() -> None:
    assert [duration(seconds) for seconds in (None, 41.6, 59.7, 185, 7800)] == [
        "?",
        "42 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 10 min",
    ]


def test_what_is_left_of_several_cells_at_once() -> None:
    left = RemainingTime([100.0, 40.0, None, 30.0], jobs=2)
    left.start(0, 0.0)
    left.start(1, 0.0)
    assert [cell.position for cell in left.shown] == [0, 1]
    assert (left.cell_left(10.0, 0), left.cell_left(10.0, 1)) == (90.0, 30.0)
    # The unknown one should take the mean, 170 / 3. It follows the second cell, and ends 30 + 170 / 3 = 86.7 from now;
    # the last one follows it, and ends 116.7 from now, when the first is over.
    assert left.suite_left(10.0) == pytest.approx(30 + 170 / 3 + 30)
    left.end(50.0, 1)
    left.start(2, 50.0)
    # 50 left for the first; (100 + 50 + 30) / 3 = 60 for the second; then 30 after the first.
    assert left.suite_left(50.0) == pytest.approx(80.0)
    assert left.done == 1


def test_a_log_has_a_line_for_each_running_cell() -> None:
    out, clock = io.StringIO(), Clock()
    progress = PlainProgress(out, every=20.0, clock=clock)
    progress.plan([None, None, None], jobs=2)
    progress.start("[1/3] a, seed 0 (job 1)", 0)
    progress.start("[2/3] b, seed 0 (job 2)", 1)
    progress.listen({"event": "phase", "name": "train"}, 0)
    clock.now = 15.0
    progress.listen(TRAINING, 0)
    clock.now = 20.0
    progress.tick()
    progress.end("[2/3] b, seed 0 (job 2): ok", 20.0, 1)
    assert out.getvalue().splitlines() == [
        "[1/3] a, seed 0 (job 1): training, epoch 2/4, step 50/100, loss 1.5000, 1,520 users/s, 138,000 events/s; "
        "about 33 s left for it",
        # As long as the first: 20 s so far and 33.3 left. The third cell follows one of them.
        "[2/3] b, seed 0 (job 2): starting; about 1 min 27 s left for the suite",
        "[2/3] b, seed 0 (job 2): ok",
    ]


def test_a_terminal_has_a_bar_for_each_running_cell() -> None:
    out = io.StringIO()
    live = LiveProgress(Console(file=out, force_terminal=True, width=160))
    live.plan([None, None], jobs=2)
    live.start("[1/2] a, seed 0 (job 1)", 0)
    live.start("[2/2] b, seed 0 (job 2)", 1)
    live.tick()
    assert len(live._bars.tasks) == 3
    live.end("[1/2] a, seed 0 (job 1): ok", 60.0, 0)
    assert [task.description for task in live._bars.tasks] == ["suite", "[2/2] b, seed 0 (job 2)"]
    live.close()
    assert re.search(r"a, seed 0 \(job 1\).*starting", out.getvalue())
