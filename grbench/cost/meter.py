"""Measuring phases: time, memory and energy.

The device is synchronised at the start and the end of a phase, so that queued GPU work belongs to the phase that
started it. Seconds are wall time of a monotonic clock; CPU seconds are processor time of all threads of this process,
and of those child processes that have ended.
"""

from __future__ import annotations

import ctypes
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch import nn

from grbench.cost.environment import nvml_handle
from grbench.distributed.ranks import current
from grbench.distributed.row_table import divided_tables
from grbench.errors import RunError

OF_ALL = ("cpu_seconds", "energy_joules", "peak_process_bytes")
"""Figures of a phase that add up over the processes of a cell and their devices."""

SAMPLING_SECONDS = 0.02
"""Interval between two samples of the process's memory, where the kernel's own peak cannot be read."""


def synchronize(device: torch.device | str) -> None:
    """Waits for all work queued on the device; returns at once on a CPU."""
    kind = torch.device(device)
    if kind.type == "cuda":
        torch.cuda.synchronize(kind)
    elif kind.type == "mps":
        torch.mps.synchronize()


def count_parameters(module: nn.Module) -> int:
    """Number of scalar parameters, on all ranks: shared parameters count once, frozen ones count, buffers do not."""
    elsewhere = (table.num_embeddings - len(table.weight) for table in divided_tables(module).values())
    widths = (table.embedding_dim for table in divided_tables(module).values())
    others = sum(rows * width for rows, width in zip(elsewhere, widths, strict=True))
    return others + sum(parameter.numel() for parameter in module.parameters())


@dataclass
class Phase:
    """Cost of one phase so far; `note` adds further values."""

    runs: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    energy_joules: float | None = None
    peak_process_bytes: int = 0
    peak_gpu_allocated_bytes: int | None = None
    peak_gpu_reserved_bytes: int | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def note(self, **figures: Any) -> None:
        """Adds further values of this phase, JSON-ready; a value replaces an earlier one of the same name."""
        self.notes.update(figures)

    def costs(self) -> dict[str, Any]:
        """All values, JSON-ready; None = cannot be measured on this machine."""
        return {
            "runs": self.runs,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "energy_joules": self.energy_joules,
            "peak_process_bytes": self.peak_process_bytes,
            "peak_gpu_allocated_bytes": self.peak_gpu_allocated_bytes,
            "peak_gpu_reserved_bytes": self.peak_gpu_reserved_bytes,
            **self.notes,
        }


class _Counters(NamedTuple):
    seconds: float
    cpu_seconds: float
    joules: float | None


class Meter:
    """Measures phases of one process on one device.

        with meter.phase("train") as phase:
            ...
            phase.note(users_per_second=...)

    A phase that is entered again accumulates. Phases may be nested: time and energy of the inner phase are not counted
    in the outer one, so that the phases add up to the total; peak memory counts for all open phases.
    Process memory is the resident set size: it includes touched pages of mapped files, but not child processes.
    Energy is that of the whole GPU, other processes included.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._phases: dict[str, Phase] = {}
        self._earlier = (0.0, 0.0)  # seconds and device-seconds that it went on from
        self._open: list[str] = []
        self._last = _Counters(0.0, 0.0, None)
        self._memory: _KernelPeak | _SampledPeak = _KernelPeak() if _KernelPeak.works() else _SampledPeak()
        self._energy = _Energy(self.device)

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """A context whose cost is added to the phase. Raises RunError where the phase is already open."""
        if name in self._open:
            raise RunError(f"phase {name!r} is already open: its time would be counted twice")
        if self._open:
            self._add_costs()
        phase = self._phases.setdefault(name, Phase())
        phase.runs += 1
        self._open.append(name)
        synchronize(self.device)
        self._restart()
        try:
            yield phase
        finally:
            self._add_costs()
            self._open.remove(name)
            if self._open:
                self._restart()
            else:
                self._memory.stop()

    @property
    def device_seconds(self) -> float:
        """Seconds of all phases times the devices that they had."""
        seconds, device_seconds = self._earlier
        return device_seconds + current().size * (sum(phase.seconds for phase in self._phases.values()) - seconds)

    def go_on_from(
        self, costs: Mapping[str, Mapping[str, Any]], *, devices: int = 1, device_seconds: float | None = None
    ) -> None:
        """Adds to the costs of another process, as its `costs` gave them. Called before the first phase.

        devices: that had costs like these, of which this process counts its share in `OF_ALL`; device_seconds: of all,
        None = each had these seconds.
        """
        own, share = {key.name for key in fields(Phase)} - {"notes"}, devices / current().size
        seconds = sum(phase["seconds"] for phase in costs.values())
        self._earlier = (seconds, devices * seconds if device_seconds is None else device_seconds)
        for name, phase in costs.items():
            measured = {key: value for key, value in phase.items() if key in own}
            for key in OF_ALL:
                if measured.get(key) is not None:
                    measured[key] = type(measured[key])(measured[key] * share)
            notes = {key: value for key, value in phase.items() if key not in own}
            self._phases[name] = Phase(**measured, notes=notes)

    def costs(self) -> dict[str, dict[str, Any]]:
        """{phase: its costs} in the order in which the phases were first entered."""
        return {name: phase.costs() for name, phase in self._phases.items()}

    def _restart(self) -> None:
        return_freed_memory()
        self._memory.restart()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # cached blocks would count for the next phase, and Faiss could not use them
            torch.cuda.reset_peak_memory_stats(self.device)
        self._last = self._read()

    def _read(self) -> _Counters:
        return _Counters(time.perf_counter(), _cpu_seconds(), self._energy.joules())

    def _add_costs(self) -> None:
        """Adds time and energy since the last reading to the innermost open phase, and updates the peaks of all."""
        synchronize(self.device)
        now = self._read()
        inner = self._phases[self._open[-1]]
        inner.seconds += now.seconds - self._last.seconds
        inner.cpu_seconds += now.cpu_seconds - self._last.cpu_seconds
        if now.joules is not None and self._last.joules is not None:
            inner.energy_joules = (inner.energy_joules or 0.0) + now.joules - self._last.joules
        peak = self._memory.peak()
        for name in self._open:
            phase = self._phases[name]
            phase.peak_process_bytes = max(phase.peak_process_bytes, peak)
            if self.device.type == "cuda":
                allocated = torch.cuda.max_memory_allocated(self.device)
                reserved = torch.cuda.max_memory_reserved(self.device)
                phase.peak_gpu_allocated_bytes = max(phase.peak_gpu_allocated_bytes or 0, allocated)
                phase.peak_gpu_reserved_bytes = max(phase.peak_gpu_reserved_bytes or 0, reserved)


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def return_freed_memory() -> None:
    """Returns freed memory to the operating system, so that it does not count in the next phase."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class _KernelPeak:
    """The peak resident set size that Linux records (VmHWM); writing 5 to clear_refs resets it (man 5 proc)."""

    _CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    @classmethod
    def works(cls) -> bool:
        """Whether the peak can be read and reset; some containers do not allow it."""
        try:
            cls().restart()
            return cls().peak() > 0
        except (OSError, RunError):
            return False

    def restart(self) -> None:
        self._CLEAR.write_text("5")

    def peak(self) -> int:
        for line in self._STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RunError(f"{self._STATUS} has no VmHWM")

    def stop(self) -> None:
        """Does nothing: no thread is running."""


class _SampledPeak:
    """The largest resident set size that a thread has sampled; it can miss peaks shorter than SAMPLING_SECONDS."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._peak = 0
        self._lock = threading.Lock()
        self._stopped: threading.Event | None = None

    def restart(self) -> None:
        with self._lock:
            self._peak = self._process.memory_info().rss
        if self._stopped is None:
            self._stopped = threading.Event()
            threading.Thread(target=self._sample, args=(self._stopped,), name="memory-sampler", daemon=True).start()

    def peak(self) -> int:
        with self._lock:
            self._peak = max(self._peak, self._process.memory_info().rss)
            return self._peak

    def stop(self) -> None:
        if self._stopped is not None:
            self._stopped.set()
            self._stopped = None

    def _sample(self, stopped: threading.Event) -> None:
        while not stopped.wait(SAMPLING_SECONDS):
            self.peak()


class _Energy:
    """The GPU's energy counter, read through NVML; None where the GPU has none."""

    def __init__(self, device: torch.device) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        if device.type == "cuda":
            self._nvml, self._handle = nvml_handle(device)

    def joules(self) -> float | None:
        """Joules since the driver was loaded."""
        if self._nvml is None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        except self._nvml.NVMLError:
            return None
