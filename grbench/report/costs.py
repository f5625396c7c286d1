"""The costs that tables show, and the machines that they were measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from grbench.report.format import GIB, count, significant
from grbench.report.provenance import measured_alone
from grbench.report.rows import Row, mean_of_known, training_cpu
from grbench.results.record import Record

CSV_COSTS = (
    "train_users_per_second",
    "train_cpu_seconds",
    "train_users_per_cpu_second",
    "train_tflops_per_second",
    "train_share_of_peak",
)
"""Costs that are in the CSV even where they have no column in the other formats, to save width."""


Combine = Callable[[Sequence[float | None]], float | None]


@dataclass(frozen=True)
class CostKind:
    """title: of its column; name: of the cost in records; text: formats a value; combine: how the seeds' values become
    one."""

    title: str
    name: str
    text: Callable[[float | None], str]
    combine: Combine = mean_of_known


def hardware(record: Record) -> str:
    """CPU, threads, memory and GPU of the machine that a record's costs were measured on, in one line."""
    facts = record.environment
    parts = [str(facts.get("cpu") or "unknown CPU")]
    if facts.get("cpu_threads"):
        parts.append(f"{facts['cpu_threads']} threads")
    if facts.get("ram_bytes"):
        parts.append(f"{facts['ram_bytes'] / GIB:.0f} GiB RAM")
    gpu, devices = facts.get("gpu"), facts.get("devices") or 1
    if devices == 1:
        parts.append(str(gpu or "no GPU used"))
    else:
        parts.append(f"{devices} x {gpu}" if gpu else f"no GPU used, {devices} processes a cell")
    return ", ".join(parts)


def cost_of(record: Record, name: str) -> float | None:
    """A record's value of a cost; None where it has none."""
    value: float | None = {**record.counts, **training_cpu(record), **record.cost}.get(name)
    return value


@dataclass(frozen=True)
class RowCost:
    """A row's cost over its seeds. value: None where it is not known or mixed; mark: beside it, where it was measured
    while other cells ran; mixed: whether the seeds were measured on different machines, so that it has no value."""

    value: float | None
    mark: str = ""
    mixed: bool = False


def row_cost(row: Row, name: str, combine: Combine = mean_of_known) -> RowCost:
    """A cost of the seeds that ran alone, where any did and it is a time or a rate. combine: how their values become
    one."""
    measured, mark = measured_alone(row.done, name)
    cost = combine([cost_of(record, name) for record in measured])
    mixed = len(machines_of(row)) > 1
    return RowCost(None if mixed else cost, "" if cost is None else mark, mixed)


def machines_of(row: Row) -> list[str]:
    """The machines that the row's cells ran on."""
    return list(dict.fromkeys(hardware(record) for record in row.done if not record.external))


def cost_kinds(records: Sequence[Record]) -> list[CostKind]:
    """The costs that have a column. On a CPU, the rate of training is that of a CPU second, which other jobs on the
    machine hardly change, where it is known of all rows."""
    on_gpu = any(record.cost.get("peak_gpu_bytes") for record in records)
    memory = ("GPU GiB", "peak_gpu_bytes") if on_gpu else ("RAM GiB", "peak_process_bytes")
    trained = [record for record in records if record.cost.get("train_users_per_second") is not None]
    known = sum(cost_of(record, "train_users_per_cpu_second") is not None for record in trained)
    by_cpu = known > 0 and not on_gpu
    return [
        CostKind("train min", "train_seconds", _minutes),
        *[CostKind("CPU min", "train_cpu_seconds", _minutes)] * by_cpu,
        *[CostKind("users/s", "train_users_per_second", significant)] * (not by_cpu or known < len(trained)),
        *[CostKind("users/CPU s", "train_users_per_cpu_second", significant)] * by_cpu,
        CostKind(*memory, lambda size: significant(None if size is None else size / GIB), largest),
        CostKind("search q/s", "search_queries_per_second", significant),
        CostKind("p99 ms", "search_p99_ms", significant),
        CostKind("params", "parameters", count),
    ]


def largest(values: Sequence[float | None]) -> float | None:
    """The largest of the values that are known; None where none is."""
    return max((value for value in values if value is not None), default=None)


def _minutes(seconds: float | None) -> str:
    return significant(None if seconds is None else seconds / 60)
