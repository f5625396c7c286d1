"""What is seen of training while it runs: losses, throughput, and whether it still makes sense."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from grbench.cost.meter import synchronize
from grbench.errors import RunError
from grbench.types import Batch, Report

REPORT_SECONDS = 0.5
"""Between two looks at the loss: each makes the host wait for the device."""
WARM_UP_STEPS = 10
"""Not counted in users/s: compilation, memory pools and caches settle. A tenth of all steps where there are few."""


def silent(event: str, **values: Any) -> None:
    """The report of those who do not want one."""


class Throughput:
    """Users and events a second, warm-up left out: the clock starts once the device has done the last warm-up step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps = self.users = self.events = self.left_out = 0
        self.seconds = 0.0
        self._warming = 0
        self._since: float | None = None

    def warm_up(self, steps: int) -> None:
        """The next steps are not counted. Called while the clock stands still."""
        self._warming = steps
        self.left_out += steps

    def resume(self) -> None:
        if not self._warming:
            synchronize(self.device)
            self._since = time.perf_counter()

    def count(self, batch: Batch) -> None:
        """Called once a step. `batch` lies on the host: counting it keeps no device waiting."""
        if self._warming:
            self._warming -= 1
            self.resume()
            return
        held = batch.items != 0
        self.steps += 1
        self.users += int(held.any(1).sum())
        self.events += int(held.sum())

    def pause(self) -> None:
        synchronize(self.device)
        self.seconds, self._since = self._now(), None

    def figures(self) -> dict[str, Any]:
        seconds = self._now()
        measured = seconds > 0 and self.users > 0
        return {
            "users_per_second": self.users / seconds if measured else None,
            "events_per_second": self.events / seconds if measured else None,
            "steps_per_second": self.steps / seconds if measured else None,
            "warm_up_steps": self.left_out,
        }

    def _now(self) -> float:
        return self.seconds + (0.0 if self._since is None else time.perf_counter() - self._since)


class EpochMonitor:
    """One epoch's losses. They stay on the device, and are looked at every half second.

    totals: {name: (sum, steps)} of the epoch so far, filled here.
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
    ) -> None:
        self.epoch, self.epochs, self.steps = epoch, epochs, steps
        self.totals, self.throughput, self.report = totals, throughput, report
        self.broken = torch.zeros((), dtype=torch.int64, device=throughput.device)
        self.looked = time.perf_counter()

    def step(self, step: int, batch: Batch, values: Mapping[str, Tensor]) -> None:
        """Counts one step; raises RunError when a look finds that one of its values was no number."""
        self.throughput.count(batch)
        numbers = {name: value.detach().float() for name, value in values.items()}
        for name, value in numbers.items():
            total, steps = self.totals.get(name, (torch.zeros_like(value), 0))
            self.totals[name] = total + value, steps + 1
        fails = ~torch.isfinite(torch.stack(list(numbers.values()))).all() & (self.broken == 0)
        self.broken = torch.where(fails, step, self.broken)
        if time.perf_counter() - self.looked >= REPORT_SECONDS:
            self.look(step)

    def look(self, step: int) -> dict[str, Any]:
        """The means and the throughput of the epoch up to this step, which are reported. Raises RunError as `step`."""
        means = torch.stack([total / steps for total, steps in self.totals.values()]).tolist()
        values = dict(zip(self.totals, means, strict=True))
        if broken := int(self.broken):
            name = next(name for name, value in values.items() if not math.isfinite(value))
            raise RunError(
                f"training: {name} is not a finite number at epoch {self.epoch}, step {broken} of {self.steps}; a "
                "lower learning rate, clip_norm, or precision fp32 may help"
            )
        figures = self.throughput.figures()
        values |= {key: figures[key] for key in ("users_per_second", "events_per_second")}
        self.report("train", epoch=self.epoch, epochs=self.epochs, step=step, steps=self.steps, **values)
        self.looked = time.perf_counter()
        return values
