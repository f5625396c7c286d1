"""What a cell has cost: every phase, over all of its devices, and the figures that tables show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grbench.cost.flops import utilisation
from grbench.cost.meter import OF_ALL, Meter
from grbench.distributed.ranks import current
from grbench.interfaces import Retriever, optional

if TYPE_CHECKING:
    from grbench.suite.method import Stage
    from grbench.training.stages import Assembled
    from grbench.training.state import TrainingResult

NOT_NEEDED = ("keep", "checkpoint", "resume")
"""Phases that no score takes: the search for longer lists, the writing of checkpoints, and what a cell does again that
goes on from one."""

Peak = Callable[[str], tuple[float, str]]
"""TFLOP/s that the device reaches at a precision, and the source of the number."""

LARGEST = ("peak_gpu_allocated_bytes", "peak_gpu_reserved_bytes")
"""Figures of a phase that are of the device with most."""


@dataclass(frozen=True)
class Spent:
    """phases: {name: its costs}, seconds by the first rank's clock; devices: what the record says of several, {} of
    one."""

    phases: dict[str, dict[str, Any]]
    devices: dict[str, Any]


def spent_by_all(meter: Meter) -> Spent:
    """What all ranks have spent, on the first; every rank calls it. Process memory adds up, so that pages that several
    processes share count several times."""
    ranks = current()
    if ranks.alone:
        return Spent(meter.costs(), {})
    every = ranks.to_first(meter.costs())
    phases = {name: dict(phase) for name, phase in meter.costs().items()}
    for name, phase in phases.items():
        each = [costs[name] for costs in every if name in costs]
        for key in (*OF_ALL, *LARGEST):
            known = [costs[key] for costs in each if costs.get(key) is not None]
            phase[key] = (sum(known) if key in OF_ALL else max(known)) if known else None
    needed = [[phase for name, phase in costs.items() if name not in NOT_NEEDED] for costs in every]

    def peaks(key: str) -> list[int | None]:
        return [max((phase[key] for phase in costs if phase.get(key) is not None), default=None) for costs in needed]

    trained = [costs["train"] for costs in every if "train" in costs]
    exchanging = sum(phase.get("communication_seconds", 0.0) for phase in trained)
    return Spent(
        phases,
        {
            "number": ranks.size,
            "backend": ranks.backend,
            "device_seconds": meter.device_seconds,
            "communication_share": exchanging / sum(phase["seconds"] for phase in trained) if trained else None,
            "peak_gpu_bytes": peaks("peak_gpu_allocated_bytes"),
            "peak_process_bytes": peaks("peak_process_bytes"),
        },
    )


def costs(
    spent: Spent, method: Assembled, trained: TrainingResult, stages: Sequence[Stage], peak: Peak
) -> dict[str, Any]:
    """Every phase's cost, and the figures that tables show; None where a phase did not run or cannot be measured."""
    phases = spent.phases
    precision = stages[-1].training.get("precision", "fp32") if stages else "fp32"
    used = utilisation(trained.flops_per_step, trained.steps_per_second, lambda: peak(precision))
    train_cost, search_cost = phases.get("train", {}), phases.get("search", {})

    needed = [phase for name, phase in phases.items() if name not in NOT_NEEDED]

    def largest(key: str) -> int | None:
        return max((phase[key] for phase in needed if phase.get(key) is not None), default=None)

    joules = [phase["energy_joules"] for phase in needed if phase.get("energy_joules") is not None]
    return {
        "train_seconds": train_cost.get("seconds"),
        "train_users_per_second": train_cost.get("users_per_second"),
        "train_events_per_second": train_cost.get("events_per_second"),
        **used,
        "search_queries_per_second": search_cost.get("queries_per_second"),
        "search_p50_ms": search_cost.get("p50_ms"),
        "search_p99_ms": search_cost.get("p99_ms"),
        "peak_process_bytes": largest("peak_process_bytes"),
        "peak_gpu_bytes": largest("peak_gpu_allocated_bytes"),
        "peak_gpu_reserved_bytes": largest("peak_gpu_reserved_bytes"),
        "energy_joules": sum(joules) if joules else None,
        "phases": phases,
        "index": optional(method.retriever, Retriever.report)(),
        **({"devices": spent.devices} if spent.devices else {}),
    }
