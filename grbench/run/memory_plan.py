"""The memory that a cell is expected to take, by part: `memory_trial` finds it out, here it is said and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from grbench.report.format import size_text

TRAINING, SEARCHING = ("gradients", "activations"), ("index",)
SAFE = 0.9
"""Of the batch that would just fit: a plan is only about right."""
WORTH_NAMING = 1 << 20
"""Bytes from which on a part is listed."""
MAPPED = (
    "mapped data: pages of the store that have been read. They stay in memory as long as nothing else needs it and\n"
    "are given back when something does: no cell is refused for them, and the peak in a cell's record has them too."
)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part. device: where the model is (RAM on a CPU); host: RAM whatever the device; growing: what of them is
    in proportion to the batch; mapped: of the store's columns that the cell reads, at most, in no other part. key:
    where in the method the batch size is. unknown: why some parts are missing; "" where none is. devices: how many
    share the batch, each of which has a process with all these parts."""

    method: str
    batch_size: int
    on_gpu: bool
    device: dict[str, int] = field(default_factory=dict)
    host: dict[str, int] = field(default_factory=dict)
    growing: dict[str, int] = field(default_factory=dict)
    mapped: int = 0
    key: str = "training"
    unknown: str = ""
    devices: int = 1

    @property
    def parts(self) -> dict[str, int]:
        """All of them."""
        return {**self.host, **self.device}

    @property
    def device_bytes(self) -> int:
        """The most at one time on the device: search comes when training is over, or between two epochs."""
        training, searching = (sum(self.device.get(name, 0) for name in names) for names in (TRAINING, SEARCHING))
        return sum(self.device.values()) - min(training, searching)

    @property
    def gpu_bytes(self) -> int:
        """The most memory of a GPU at one time."""
        return self.device_bytes if self.on_gpu else 0

    @property
    def ram_bytes(self) -> int:
        """The most RAM at one time, that of all devices' processes together, without what is mapped."""
        return self.devices * (sum(self.host.values()) + (0 if self.on_gpu else self.device_bytes))

    def to_json(self) -> dict[str, Any]:
        """As a mapping."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Back from it."""
        return cls(**values)

    def refusal(self, ram: int | None, gpu: int | None) -> str | None:
        """Why it cannot fit into so many bytes, and what would; None where it can, as far as is known."""
        each = f" on each of {self.devices} devices" if self.devices > 1 else ""
        for needed, limit, what, parts in (
            (self.gpu_bytes, gpu, f"GPU memory{each}", self.device),
            (
                self.ram_bytes // self.devices,
                None if ram is None else ram // self.devices,
                f"RAM{each}",
                self.host if self.on_gpu else self.parts,
            ),
        ):
            if limit is None or needed <= limit:
                continue
            largest = max(parts, key=lambda name: parts[name])
            said = (
                f"{self.method}: needs about {size_text(needed)} of {what}, this machine has {size_text(limit)}; "
                f"the largest part is {largest}, {size_text(parts[largest])}"
            )
            if fits := self._largest_batch(limit, needed, parts):
                said += f"; {self.key}.batch_size {fits:,} in place of {self.batch_size:,} would fit"
            return said
        return None

    def _largest_batch(self, limit: int, needed: int, parts: Mapping[str, int]) -> int:
        """0 where no batch would fit, or search is what does not."""
        growing = sum(size for name, size in self.growing.items() if name in parts)
        if growing <= 0 or needed - growing >= limit:
            return 0
        fits = int(SAFE * self.batch_size * (limit - (needed - growing)) / growing)
        return fits if fits < 100 else fits // 10 * 10


def memory_text(plans: Sequence[MemoryPlan]) -> str:
    """The plans as they are printed, one line a method, and what mapped data is."""
    from tabulate import tabulate

    rows = []
    for plan in plans:
        parts = sorted(plan.parts.items(), key=lambda part: -part[1])
        named = [f"{name} {size_text(size)}" for name, size in parts if size >= WORTH_NAMING]
        if plan.unknown:
            named.append(f"not known: {plan.unknown}")
        known = bool(parts)
        if plan.devices > 1:
            named = [f"on each of {plan.devices} devices: {', '.join(named)}"]
        rows.append(
            [
                plan.method,
                size_text(plan.ram_bytes) if known else "?",
                size_text(plan.mapped) if known else "",
                size_text(plan.gpu_bytes) if plan.on_gpu and known else "",
                ", ".join(named),
            ]
        )
    gpu = "GPU (each)" if any(plan.devices > 1 for plan in plans) else "GPU"
    headers = ["method", "RAM", "mapped data", gpu, "parts of RAM and GPU, largest first (estimated)"]
    return f"{tabulate(rows, headers=headers, tablefmt='simple', disable_numparse=True)}\n\n{MAPPED}"
