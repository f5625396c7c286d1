"""Clocks and memory, the same for everyone: what a phase took, and on what machine.

A phase's figures begin and end with the device synchronised, so that work still queued on a GPU is neither lost nor
charged to the phase that follows. Seconds are wall time by a monotonic clock.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch import nn

from grbench.cost.environment import nvml_handle
from grbench.errors import RunError

SAMPLED_EVERY = 0.02
"""Seconds between two looks at the process's memory, where the kernel does not keep its peak for us."""


def synchronize(device: torch.device | str) -> None:
    """Waits for all work queued on the device; nothing to wait for on a CPU."""
    kind = torch.device(device)
    if kind.type == "cuda":
        torch.cuda.synchronize(kind)
    elif kind.type == "mps":
        torch.mps.synchronize()


def count_parameters(module: nn.Module) -> int:
    """Numbers that training sets, or could: shared ones once, frozen ones too, buffers not."""
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass
class Phase:
    """What one phase has cost so far; `note` adds figures of its own."""

    runs: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    energy_joules: float | None = None
    peak_process_bytes: int = 0
    peak_gpu_allocated_bytes: int | None = None
    peak_gpu_reserved_bytes: int | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def note(self, **figures: Any) -> None:
        """Keeps further figures of this phase, JSON-ready; a later one of the same name replaces the earlier."""
        self.notes.update(figures)

    def costs(self) -> dict[str, Any]:
        """All of it, JSON-ready; null = cannot be measured here."""
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


class _Reading(NamedTuple):
    seconds: float
    cpu_seconds: float
    joules: float | None


class Meter:
    """Measures phases of one process on one device.

        with meter.phase("train") as phase:
            ...
            phase.note(users_per_second=...)

    A phase entered again adds to what it had. Phases may be nested: while the inner one runs, time and energy are
    its own and not the outer one's, so that all phases add up to the whole; a peak counts for every phase it lies in.
    Process memory is the resident set: pages of mapped files that have been touched are in it, child processes are
    not. Energy is the whole GPU's, whoever uses it.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._phases: dict[str, Phase] = {}
        self._open: list[str] = []
        self._last = _Reading(0.0, 0.0, None)
        self._memory: _KernelPeak | _SampledPeak = _KernelPeak() if _KernelPeak.works() else _SampledPeak()
        self._energy = _Energy(self.device)

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """Measures what is done inside; raises RunError when the phase of this name is already running."""
        if name in self._open:
            raise RunError(f"phase {name!r} is entered while it runs: its time would be counted twice")
        if self._open:
            self._charge()
        phase = self._phases.setdefault(name, Phase())
        phase.runs += 1
        self._open.append(name)
        synchronize(self.device)
        self._restart()
        try:
            yield phase
        finally:
            self._charge()
            self._open.remove(name)
            if self._open:
                self._restart()
            else:
                self._memory.stop()

    def costs(self) -> dict[str, dict[str, Any]]:
        """{phase: figures} in the order in which the phases were first entered."""
        return {name: phase.costs() for name, phase in self._phases.items()}

    def _restart(self) -> None:
        let_go()
        self._memory.restart()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what torch keeps for itself is neither the next phase's nor there for Faiss
            torch.cuda.reset_peak_memory_stats(self.device)
        self._last = self._read()

    def _read(self) -> _Reading:
        return _Reading(time.perf_counter(), time.process_time(), self._energy.joules())

    def _charge(self) -> None:
        """Adds what has passed to the innermost open phase, and the peaks to all open ones."""
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


def let_go() -> None:
    """Gives the system back what the process has freed: no phase is then charged for the one before it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class _KernelPeak:
    """The peak of the resident set as Linux keeps it (VmHWM), which writing 5 to clear_refs sets back (man 5 proc)."""

    _CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    @classmethod
    def works(cls) -> bool:
        """Whether this kernel lets us: some containers do not."""
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
        """Nothing runs meanwhile."""


class _SampledPeak:
    """The largest resident set that a thread has seen: a shorter peak than its step can be missed."""

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
        while not stopped.wait(SAMPLED_EVERY):
            self.peak()


class _Energy:
    """The GPU's own energy counter, through NVML; None where there is no such counter."""

    def __init__(self, device: torch.device) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        if device.type == "cuda":
            self._nvml, self._handle = nvml_handle(device)

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        if self._nvml is None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        except self._nvml.NVMLError:
            return None
