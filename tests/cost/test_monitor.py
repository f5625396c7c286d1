"""Mean losses of an epoch, and the values of a trainer that cannot be averaged."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from grbench.cost.monitor import EpochMonitor, Throughput, no_report
from grbench.errors import RunError
from grbench.types import Batch

CPU = torch.device("cpu")
ZEROS = torch.zeros((1, 1), dtype=torch.int64)
BATCH = Batch(ZEROS[0], *(ZEROS,) * 5, *(ZEROS[0],) * 3)


def monitor(totals: dict[str, tuple[Tensor, int]] | None = None) -> EpochMonitor:
    totals = {} if totals is None else totals
    return EpochMonitor(2, 3, 5, totals=totals, throughput=Throughput(CPU), report=no_report, trainer="Own")


def after(*steps: Mapping[str, Any], totals: dict[str, tuple[Tensor, int]] | None = None) -> EpochMonitor:
    """A monitor that has seen these values, one mapping for each step."""
    running = monitor(totals)
    for number, values in enumerate(steps, start=1):
        running.step(number, BATCH, values)
    return running


def test_floats_and_tensors_are_averaged() -> None:
    means = after({"loss": 1.0, "reward": 3}, {"loss": torch.tensor(2.0)}).report_means(2)
    assert (means["loss"], means["reward"]) == (1.5, 3.0)


def test_no_values_are_one_message() -> None:
    with pytest.raises(RunError, match=r"^trainer Own: step returned no values; return at least"):
        after({})


@pytest.mark.parametrize("name", ["epoch", "step", "event", "users_per_second"])
def test_a_reserved_name_is_one_message(name: str) -> None:
    with pytest.raises(RunError, match=rf"^trainer Own: step returned a value named '{name}', which is reserved"):
        after({"loss": 1.0, name: 1.0})


def test_a_value_that_is_not_finite_is_named_with_its_step() -> None:
    with pytest.raises(RunError, match=r"^training: odd is not a finite number at epoch 2, step 2 of 5;"):
        after({"loss": 1.0, "odd": 1.0}, {"loss": 1.0, "odd": float("inf")}, {"odd": 1.0}).report_means(3)


def test_a_value_that_was_not_finite_before_a_checkpoint_is_named_after_it() -> None:
    saved = after({"loss": 1.0}, {"loss": float("nan")}).totals
    with pytest.raises(RunError, match=r"^training: loss is not a finite number at epoch 2, at or before step 3 of 5;"):
        after({"loss": 1.0}, totals=dict(saved)).report_means(3)
    with pytest.raises(RunError, match=r"at or before step 2 of 5;"):  # the checkpoint was of the epoch's last step
        monitor(dict(saved)).report_means(2)


def test_throughput_goes_on_from_what_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    batch = dataclasses.replace(BATCH, items=torch.ones((1, 1), dtype=torch.int64))

    def steps(throughput: Throughput, number: int) -> None:
        for _ in range(number):
            now[0] += 2.0
            throughput.count(batch)

    first = Throughput(CPU)
    first.warm_up(3)
    first.resume()
    steps(first, 2)
    assert first.state_dict() == {"steps": 0, "users": 0, "events": 0, "seconds": 0.0, "warm_up_steps": 2}
    steps(first, 3)
    with first.paused():
        now[0] += 100.0
        saved = first.state_dict()
    steps(first, 1)
    assert first.rates()["users_per_second"] == 0.5  # the hundred seconds are not counted
    assert saved == {"steps": 2, "users": 2, "events": 2, "seconds": 4.0, "warm_up_steps": 3}
    second = Throughput(CPU)
    second.load_state_dict(saved)
    second.warm_up(1)
    second.resume()
    steps(second, 3)
    assert second.rates() == {
        "users_per_second": 0.5,
        "events_per_second": 0.5,
        "steps_per_second": 0.5,
        "warm_up_steps": 4,
    }
