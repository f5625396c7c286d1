"""Hardware and software versions of the machine that a cell runs on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from grbench.distributed.ranks import current


def environment(device: torch.device | str = "cpu", *, git: bool = True) -> dict[str, Any]:
    """Hardware and software versions for the record, JSON-ready; None = absent or unknown. git: with the state of the
    checkout, which takes two processes to find out."""
    device = torch.device(device)
    return {
        "device": device.type,
        "devices": current().size,
        "cpu": _cpu_model(),
        "cpu_cores": psutil.cpu_count(logical=False),
        "cpu_threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "ram_bytes": psutil.virtual_memory().total,
        **_gpu(device),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": _version("numpy"),
        "faiss": _version("faiss-cpu") or _version("faiss-gpu"),
        "grbench": _version("grbench"),
        **({"git_commit": _git("rev-parse", "HEAD"), "git_changed": _git_changed()} if git else {}),
    }


def _gpu(device: torch.device) -> dict[str, Any]:
    none = {"gpu": None, "gpus": 0, "gpu_memory_bytes": None, "gpu_driver": None}
    if device.type != "cuda":
        return none
    properties = torch.cuda.get_device_properties(device)
    nvml, _ = nvml_handle(device)
    driver = nvml.nvmlSystemGetDriverVersion() if nvml is not None else None
    return {
        "gpu": properties.name,
        "gpus": torch.cuda.device_count(),
        "gpu_memory_bytes": properties.total_memory,
        "gpu_driver": driver.decode() if isinstance(driver, bytes) else driver,
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or platform.machine()  # no Linux
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Output of a git command in this package's checkout; None where the package does not run from one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed package, which may be inside another repository
        return None
    try:
        run = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def _git_changed() -> bool | None:
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return None if changes is None else bool(changes)


def nvml_handle(device: torch.device) -> tuple[Any, Any]:
    """(the NVML module, its handle of the device), or (None, None) where NVML is not available.

    The device is found by its UUID, because CUDA_VISIBLE_DEVICES changes CUDA's numbering but not NVML's.
    """
    try:
        import pynvml
    except ImportError:
        return None, None
    try:
        pynvml.nvmlInit()
        identity = str(torch.cuda.get_device_properties(device).uuid)
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(identity if identity.startswith("GPU") else f"GPU-{identity}")
    except (pynvml.NVMLError, AttributeError):
        return None, None
