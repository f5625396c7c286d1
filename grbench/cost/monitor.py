"""Monitoring a training while it runs: mean losses, throughput, and losses that are not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from grbench.cost.meter import synchronize
from grbench.errors import RunError
from grbench.types import Batch, Report

REPORT_SECONDS = 0.5
"""Seconds between two reports of the losses; for each one the host waits for the device."""
RESERVED_NAMES = frozenset(
    (
        "event",
        "what",
        "stage",
        "epoch",
        "epochs",
        "step",
        "steps",
        "total_steps",
        "users_per_second",
        "events_per_second",
    )
)
"""Names of other values of the training curve and of reports, which a trainer's values cannot have."""
WARM_UP_STEPS = 10
"""Steps at the start of a stage that are not counted in the throughput: compilation, memory pools and caches. A tenth
of all steps where that is fewer."""


def no_report(event: str, **values: Any) -> None:
    """A Report that does nothing."""


class Throughput:
    """Users, events and steps per second without the warm-up steps; the clock runs between `resume` and `pause`."""

    _COUNTED = ("steps", "users", "events", "seconds")

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps = self.users = self.events = self.warm_up_steps = 0
        self.seconds = 0.0
        self._warm_up_left = 0
        self._since: float | None = None

    def warm_up(self, steps: int) -> None:
        """Excludes the next steps. Called while the clock is paused."""
        self._warm_up_left = steps
        self.warm_up_steps += steps

    def resume(self) -> None:
        """Starts the clock, once the device has finished its queued work and no warm-up step is left."""
        if not self._warm_up_left:
            synchronize(self.device)
            self._since = time.perf_counter()

    def count(self, batch: Batch, size: tuple[int, int] | None = None) -> None:
        """Called once per step. The batch is on the host, so that counting does not wait for the device. size: users
        and events of the whole batch, where this is a part of it."""
        if self._warm_up_left:
            self._warm_up_left -= 1
            self.resume()
            return
        present = batch.items != 0
        users, events = size or (int(present.any(1).sum()), int(present.sum()))
        self.steps += 1
        self.users += users
        self.events += events

    def pause(self) -> None:
        """Stops the clock once the device has finished its queued work."""
        synchronize(self.device)
        self.seconds, self._since = self._seconds_now(), None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time is not counted."""
        runs = self._since is not None
        self.pause()
        try:
            yield
        finally:
            if runs:
                self.resume()

    def state_dict(self) -> dict[str, Any]:
        """What was counted so far, for a process that goes on from here. Called while the clock is paused."""
        made = self.warm_up_steps - self._warm_up_left
        return {**{key: getattr(self, key) for key in self._COUNTED}, "warm_up_steps": made}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on counting from what `state_dict` returned."""
        for key in (*self._COUNTED, "warm_up_steps"):
            setattr(self, key, saved[key])

    def rates(self) -> dict[str, Any]:
        """users, events and steps per second, None where no step was counted, and the number of warm-up steps."""
        seconds = self._seconds_now()
        measured = seconds > 0 and self.users > 0
        return {
            "users_per_second": self.users / seconds if measured else None,
            "events_per_second": self.events / seconds if measured else None,
            "steps_per_second": self.steps / seconds if measured else None,
            "warm_up_steps": self.warm_up_steps,
        }

    def _seconds_now(self) -> float:
        return self.seconds + (0.0 if self._since is None else time.perf_counter() - self._since)


class EpochMonitor:
    """Sums an epoch's losses on the device and reports their means every REPORT_SECONDS.

    totals: {name: (sum, steps)} of the epoch so far, updated in place; trainer: its name in messages; steps_before: of
    earlier epochs and stages; log_every: the losses of a step are reported too where its number, counted from the first
    stage's first, is a multiple of one of these.
    """

    def __init__(
        self,
        epoch: int,
        epochs: int,
        steps: int,
        *,
        totals: dict[str, tuple[Tensor, int]],
        throughput: Throughput,
        report: Report,
        trainer: str,
        steps_before: int = 0,
        log_every: Collection[int] = (),
    ) -> None:
        self.epoch, self.epochs, self.steps = epoch, epochs, steps
        self.steps_before, self.log_every = steps_before, log_every
        self.totals, self.throughput, self.report, self.trainer = totals, throughput, report, trainer
        self.first_not_finite = torch.zeros((), dtype=torch.int64, device=throughput.device)
        self.last_report = time.perf_counter()

    def step(
        self, step: int, batch: Batch, values: Mapping[str, Tensor | float], size: tuple[int, int] | None = None
    ) -> None:
        """Adds the values of step number `step` (1 = first). Raises RunError where there are none, where one has a
        reserved name, and as `report_means` does. size: as `Throughput.count` has it."""
        self.throughput.count(batch, size)
        if not values:
            raise RunError(
                f"trainer {self.trainer}: step returned no values; return at least {{'loss': scalar tensor}}"
            )
        if reserved := sorted(RESERVED_NAMES & values.keys()):
            raise RunError(
                f"trainer {self.trainer}: step returned a value named {reserved[0]!r}, which is reserved; rename it"
            )
        numbers = {name: self._number(value) for name, value in values.items()}
        for name, value in numbers.items():
            total, steps = self.totals.get(name, (torch.zeros_like(value), 0))
            self.totals[name] = total + value, steps + 1
        fails = ~torch.isfinite(torch.stack(list(numbers.values()))).all() & (self.first_not_finite == 0)
        self.first_not_finite = torch.where(fails, step, self.first_not_finite)
        if any((self.steps_before + step) % every == 0 for every in self.log_every):
            now = dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))
            self._check_finite(now, step)
            self.report("step", **self.position(step), **now, **self._rates())
        if time.perf_counter() - self.last_report >= REPORT_SECONDS:
            self.report_means(step)

    def report_means(self, step: int) -> dict[str, Any]:
        """Reports and returns the mean losses and the throughput of the epoch up to this step.

        Raises RunError where a value was not finite, naming the first such step; that is not known where it was before
        a checkpoint from which training was resumed.
        """
        means = torch.stack([total / steps for total, steps in self.totals.values()]).tolist()
        values = dict(zip(self.totals, means, strict=True))
        self._check_finite(values, step)
        values |= self._rates()
        self.report("train", **self.position(step), **values)
        self.last_report = time.perf_counter()
        return values

    def position(self, step: int) -> dict[str, int]:
        """The place of step number `step` of the epoch, as reports have it."""
        place = {"epoch": self.epoch, "epochs": self.epochs, "step": step, "steps": self.steps}
        return {**place, "total_steps": self.steps_before + step}

    def _rates(self) -> dict[str, Any]:
        rates = self.throughput.rates()
        return {key: rates[key] for key in ("users_per_second", "events_per_second")}

    def _check_finite(self, values: Mapping[str, float], step: int) -> None:
        if not_finite := [name for name, value in values.items() if not math.isfinite(value)]:
            failed = int(self.first_not_finite)
            place = f"step {failed}" if failed else f"at or before step {step}"
            raise RunError(
                f"training: {not_finite[0]} is not a finite number at epoch {self.epoch}, {place} of {self.steps}; a "
                "lower learning rate, clip_norm, or precision fp32 may help"
            )

    def _number(self, value: Tensor | float) -> Tensor:
        """A scalar on the device, which is not waited for."""
        if isinstance(value, Tensor):
            return value.detach().float()
        return torch.full((), value, dtype=torch.float32, device=self.throughput.device)
