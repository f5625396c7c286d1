"""The machine's processors, memory and GPUs, found out without importing torch."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from grbench.cost.limits import memory_limit, processor_limit
from grbench.doctor.diagnosis import Diagnosis
from grbench.report.format import size_text

LITTLE_MEMORY = 2 << 30
"""Bytes below which not even the quickstart's processes are sure to fit."""
PCI = Path("/sys/bus/pci/devices")
NVIDIA, DISPLAY = "0x10de", "0x03"
"""A PCI device's vendor, and the class of display controllers, which GPUs without a screen are of too."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that NVIDIA's driver knows. memory: bytes."""

    name: str
    memory: int


@dataclass(frozen=True)
class Gpus:
    """What the driver says. cuda: the newest CUDA version that it runs, (major, minor); why_none: "" where there are
    any."""

    found: tuple[Gpu, ...] = ()
    driver: str = ""
    cuda: tuple[int, int] = (0, 0)
    why_none: str = ""


def processors() -> Diagnosis:
    """How many processors a run may use."""
    usable, total = processor_limit(), os.cpu_count() or 1
    of_all = "" if usable == total else f" of {total} (the others are not this process's to use)"
    facts = {"usable": usable, "total": total, "architecture": platform.machine()}
    return Diagnosis("processors", f"{usable:g}{of_all}", facts=facts)


def memory() -> Diagnosis:
    """How much RAM a run may use."""
    total, limit = psutil.virtual_memory().total, memory_limit()
    free = min(limit, psutil.virtual_memory().available)
    limited = "" if limit == total else f" of {size_text(total)} (limit of the control group)"
    text = f"{size_text(limit)}{limited}, {size_text(free)} of it free"
    facts = {"limit_bytes": limit, "total_bytes": total, "free_bytes": free}
    if free < LITTLE_MEMORY:
        return Diagnosis("memory", text, "note", "end other programs: the quickstart takes about 1 GiB", facts)
    return Diagnosis("memory", text, facts=facts)


def driver_gpus() -> Gpus:
    """The GPUs by NVIDIA's driver, which are all, whatever CUDA_VISIBLE_DEVICES says."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if not _on_the_bus():
            return Gpus(why_none="this machine has no NVIDIA GPU")
        return Gpus(why_none=f"this machine has an NVIDIA GPU, and its driver cannot be used ({error})")
    try:
        version = int(pynvml.nvmlSystemGetCudaDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        found = tuple(
            Gpu(_text(pynvml.nvmlDeviceGetName(handle)), int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))
            for handle in handles
        )
        driver, cuda = _text(pynvml.nvmlSystemGetDriverVersion()), (version // 1000, version % 1000 // 10)
        return Gpus(found, driver, cuda, "" if found else "NVIDIA's driver knows no GPU")
    except pynvml.NVMLError as error:
        return Gpus(why_none=f"NVIDIA's driver does not answer ({error})")
    finally:
        pynvml.nvmlShutdown()


def gpu(gpus: Gpus) -> Diagnosis:
    """Which GPUs there are, or why none can be used."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    facts = {
        "gpus": [asdict(each) for each in gpus.found],
        "driver": gpus.driver or None,
        "driver_cuda": list(gpus.cuda) if gpus.found else None,
        "CUDA_VISIBLE_DEVICES": hidden,
    }
    if not gpus.found:
        nothing_to_do = not _on_the_bus()
        remedy = "" if nothing_to_do else "install NVIDIA's driver, or mend it: `nvidia-smi` should list the GPU"
        text = f"none: {gpus.why_none}; everything runs on the processors"
        return Diagnosis("GPU", text, "ok" if nothing_to_do else "note", remedy, facts)
    named = ", ".join(f"{each.name} ({size_text(each.memory)})" for each in gpus.found)
    text = f"{named}; driver {gpus.driver}, for CUDA up to {gpus.cuda[0]}.{gpus.cuda[1]}"
    if hidden is not None and hidden.strip() in ("", "-1"):
        hides = f"{text}; CUDA_VISIBLE_DEVICES={hidden} hides every GPU"
        return Diagnosis("GPU", hides, "note", "unset CUDA_VISIBLE_DEVICES", facts)
    return Diagnosis("GPU", text, facts=facts)


def _on_the_bus() -> bool:
    """Whether the machine has an NVIDIA display controller, driver or not. In a container this may be the host's."""
    for device in PCI.glob("*"):
        with suppress(OSError):
            is_display = (device / "class").read_text().startswith(DISPLAY)
            if is_display and (device / "vendor").read_text().strip() == NVIDIA:
                return True
    return False


def _text(value: str | bytes) -> str:
    """NVML's texts are bytes in some of its versions."""
    return value.decode() if isinstance(value, bytes) else value
