"""The search for the best values, without a process: what it tries, what it prunes, and what survives a kill."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grbench.errors import RunError
from grbench.suite.tuning import Budget, Choices, Interval, Space, Tuning
from grbench.tuning.search import STUDIES, Search, Trial

SPACE: Space = {"optimizer.lr": Interval(1e-4, 1e-2, log=True), "encoder.blocks": Choices((1, 2, 3))}


def search(folder: Path, trials: int = 8, space: Space = SPACE, **options: Any) -> Search:
    tuning = Tuning(Budget(trials=trials), startup_trials=3, **options)
    return Search(folder, "method", space, tuning, higher_is_better=True)


def value_of(values: dict[str, Any]) -> float:
    """Highest where lr is .001 and there are two blocks."""
    return -abs(values["optimizer.lr"] - 0.001) - abs(values["encoder.blocks"] - 2)


def run(found: Search, most: int = 1000, value: Callable[[dict[str, Any]], float] = value_of) -> list[Trial]:
    """Runs up to so many trials, each of one epoch."""
    for _ in range(most):
        trial = found.claim()
        if trial is None:
            break
        found.report(trial, 1, {1: value(trial.values)})
        found.finish(trial, "complete", value(trial.values), 1.0, "ok")
    return found.trials


def test_the_same_search_tries_the_same_values(tmp_path: Path) -> None:
    first = run(search(tmp_path / "a"))
    assert len(first) == 8
    assert run(search(tmp_path / "b")) == first
    assert run(search(tmp_path / "c", seed=1)) != first


def test_a_search_that_goes_on_tries_what_it_would_have_tried(tmp_path: Path) -> None:
    whole = run(search(tmp_path / "whole"))
    begun = search(tmp_path / "parts")
    run(begun, most=4)
    killed = begun.claim()  # and never finished: its process is gone, and the kernel has let go of its claim
    assert killed is not None
    begun.report(killed, 1, {1: value_of(killed.values)})
    del begun
    gc.collect()
    resumed = search(tmp_path / "parts")
    again = resumed.claim()
    assert again is not None
    assert (again.number, again.values, again.scores) == (4, killed.values, {1: value_of(killed.values)})
    resumed.finish(again, "complete", value_of(again.values), 1.0, "ok")
    assert [(trial.number, trial.values, trial.value) for trial in run(resumed)] == [
        (trial.number, trial.values, trial.value) for trial in whole
    ]
    assert resumed.not_repeatable == []


def test_a_larger_budget_goes_on_and_a_smaller_one_looks_back(tmp_path: Path) -> None:
    whole = run(search(tmp_path / "whole"))
    run(search(tmp_path / "parts", trials=5))
    assert run(search(tmp_path / "parts", trials=8)) == whole
    shorter = search(tmp_path / "parts", trials=5)
    assert shorter.trials == whole[:5]
    assert shorter.finished
    assert shorter.chosen == max(whole[:5], key=lambda trial: trial.value or 0.0)


def test_two_runs_share_the_trials(tmp_path: Path) -> None:
    one, other = search(tmp_path, trials=4), search(tmp_path, trials=4)
    claimed = [one.claim(), other.claim(), one.claim(), other.claim(), other.claim()]
    assert [trial and trial.number for trial in claimed] == [0, 1, 2, 3, None]
    assert not one.finished
    assert other.chosen is None
    for holder, trial in zip((one, other, one, other), claimed, strict=False):
        assert trial is not None
        holder.finish(trial, "complete", float(trial.number), 1.0, "ok")
    assert one.finished
    assert other.chosen == one.chosen == one.trials[3]
    assert one.not_repeatable == ["trials ran beside each other"]
    assert len({str(trial.values) for trial in one.trials}) == 4


def test_a_trial_below_the_median_of_those_before_it_is_pruned(tmp_path: Path) -> None:
    found = search(tmp_path, space={"x": Choices((1, 2, 3, 4, 5, 6))})
    for number, score in enumerate((0.1, 0.2, 0.3)):
        trial = found.claim()
        assert trial is not None
        assert trial.number == number
        # fewer than three are complete, so none is pruned yet
        assert not found.report(trial, 1, {1: score})
        found.finish(trial, "complete", score, 1.0, "ok")
    trial = found.claim()
    assert trial is not None
    assert not found.report(trial, 1, {1: 0.2})  # the median itself
    assert not found.report(trial, 2, {1: 0.2, 2: 0.1})  # of epoch 2, the others have no score
    assert found.report(trial, 1, {1: 0.19})
    found.finish(trial, "pruned", None, 0.5, "ok")
    assert [each.state for each in found.trials] == ["complete"] * 3 + ["pruned"]
    never = search(tmp_path / "never", space={"x": Choices((1, 2, 3))}, pruner="none")
    run(never, most=3, value=lambda _: 1.0)
    trial = never.claim()
    assert trial is not None
    assert not never.report(trial, 1, {1: 0.0})


def test_lower_is_better_for_some_metrics(tmp_path: Path) -> None:
    tuning = Tuning(Budget(trials=6), startup_trials=2)
    found = Search(tmp_path, "method", SPACE, tuning, higher_is_better=False)
    trials = run(found, value=lambda values: values["optimizer.lr"])
    assert found.chosen == min(trials, key=lambda trial: trial.value or 0.0)


def test_failed_trials_count_and_are_not_chosen(tmp_path: Path) -> None:
    found = search(tmp_path, trials=3)
    for state, status in (("failed", "error"), ("failed", "timeout"), ("complete", "ok")):
        trial = found.claim()
        assert trial is not None
        found.finish(trial, state, 0.5 if state == "complete" else None, 2.0, status)  # type: ignore[arg-type]
    assert found.finished
    assert found.chosen == found.trials[2]
    facts = found.facts()
    assert (facts["trials"], facts["complete"], facts["pruned"], facts["failed"]) == (3, 1, 0, 2)
    assert facts["seconds"] == 6.0
    assert facts["not_repeatable"] == ["trials ended as timeout"]


def test_a_search_by_time_is_not_repeatable(tmp_path: Path) -> None:
    tuning = Tuning(Budget(training_seconds=2.5))
    found = Search(tmp_path, "method", SPACE, tuning, higher_is_better=True)
    assert len(run(found)) == 3  # of a second each
    assert found.not_repeatable == ["its budget is in seconds"]


def test_the_file_of_a_search_outlives_a_line_cut_short(tmp_path: Path) -> None:
    before = run(search(tmp_path), most=3)
    with (tmp_path / "optuna.log").open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    assert run(search(tmp_path))[:3] == before


def test_looking_at_a_search_writes_nothing(tmp_path: Path) -> None:
    run(search(tmp_path), most=2)
    with (tmp_path / STUDIES).open("ab") as file:
        file.write(b'{"op_code": 0, "study_na')  # another process is just writing
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = Search(tmp_path, "another", SPACE, Tuning(Budget(trials=8)), higher_is_better=True)
    assert (other.trials, other.finished, other.chosen) == ([], False, None)
    looking = search(tmp_path)
    assert [trial.state for trial in looking.trials] == ["complete", "complete"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    run(search(tmp_path), most=1)
    assert len(looking.trials) == 3  # those of other processes are seen
    assert len(run(looking)) == 8  # and it may go on itself
    assert looking.finished


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run(search(tmp_path), most=2)
    file = tmp_path / "optuna.log"
    file.write_bytes(b"\x00 nothing\n" * 3)
    with pytest.raises(RunError, match=r"optuna\.log: is damaged .*; move it away or delete it"):
        search(tmp_path).trials  # noqa: B018


def test_values_are_drawn_from_their_ranges(tmp_path: Path) -> None:
    space: Space = {
        "whole": Interval(2, 9, step=3, whole=True),
        "log": Interval(1, 64, log=True, whole=True),
        "stepped": Interval(0.0, 0.45, step=0.1),
        "fraction": Interval(0.5, 2.0),
        "listed": Choices((None, [1, 2], {"name": "x"}, "text")),
    }
    values = [trial.values for trial in run(search(tmp_path, 25, space), value=lambda _: 0.0)]
    assert {each["whole"] for each in values} == {2, 5, 8}
    assert all(isinstance(each["log"], int) and 1 <= each["log"] <= 64 for each in values)
    assert {each["stepped"] for each in values} <= {0.0, 0.1, 0.2, 0.3, 0.4}
    assert all(0.5 <= each["fraction"] <= 2 and len(str(each["fraction"])) <= 6 for each in values)
    assert {str(each["listed"]) for each in values} == {"None", "[1, 2]", "{'name': 'x'}", "text"}
