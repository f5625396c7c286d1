"""The commands that a finished run offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grbench.report.next_steps import next_steps
from grbench.results.record import Record


def a_record(method: str, score: float, **facts: Any) -> Record:
    return Record(
        **{
            "digest": f"{method}{score}",
            "suite": "tiny",
            "method": method,
            "seed": 0,
            "status": "ok",
            "metrics": {"loss": {"higher_is_better": False, "version": "1"}},
            "pool": {"size": 9, "digest": "p"},
            "scores": {"loss": score},
        }
        | facts
    )


def compared(*records: Record) -> str:
    steps = next_steps(records, Path("results/tiny"))
    return next((line for line in steps.splitlines() if " compare " in line), "")


def test_the_best_is_compared_with_the_baseline_or_else_the_second() -> None:
    three = [("floor", 3.0), ("good", 1.0), ("better one", 0.5)]
    with_baseline = [a_record(name, score, baseline="floor") for name, score in three]
    assert " compare 'better one' floor --results results/tiny " in compared(*with_baseline)
    assert " compare 'better one' good --results results/tiny " in compared(*(a_record(*each) for each in three))
    best = [a_record(name, score, baseline="better one") for name, score in three]
    assert " compare 'better one' good " in compared(*best)


def test_one_method_has_none_to_be_compared_with_and_failures_offer_nothing() -> None:
    assert compared(a_record("alone", 1.0)) == ""
    assert "Kept in results/tiny" in next_steps([a_record("alone", 1.0)], Path("results/tiny"))
    assert next_steps([a_record("lost", 1.0, status="error", scores={})], Path("results/tiny")) == ""


def test_a_suite_run_by_name_can_be_copied() -> None:
    assert "suite show tiny > my_suite.yaml" in next_steps([a_record("a", 1.0)], Path("results/tiny"), "tiny")
