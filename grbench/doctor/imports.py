"""Importing what runs import, and a product on the GPU: seconds, but the proof."""

from __future__ import annotations

from importlib import import_module

from grbench.doctor.diagnosis import Diagnosis, Severity
from grbench.doctor.hardware import Gpus
from grbench.errors import first_line
from grbench.invocation import pip

MODULES = ("torch", "faiss", "numpy", "pandas", "pyarrow", "scipy", "optuna", "safetensors")
"""Those with compiled code, which a wrong build or a missing system library breaks."""
OPTIONAL = ("faiss",)


def imports(gpus: Gpus) -> list[Diagnosis]:
    """A diagnosis for each library that cannot be imported, one for those that can, and one of the GPU."""
    broken: dict[str, str] = {}
    for name in MODULES:
        try:
            import_module(name)
        except Exception as error:  # noqa: BLE001 - a library that is broken may raise anything
            broken[name] = f"{type(error).__name__}: {first_line(error)}"
    right = [name for name in MODULES if name not in broken]
    found = [Diagnosis("imports", f"{', '.join(right)} can be imported")] if right else []
    for name, reason in broken.items():
        package = "faiss-cpu" if name == "faiss" else name
        remedy = pip(f"install --force-reinstall {package}")
        severity: Severity = "note" if name in OPTIONAL else "stop"
        found.append(Diagnosis("imports", f"{name} cannot be imported: {reason}", severity, remedy))
    return found if "torch" in broken or not gpus.found else [*found, _on_gpu()]


def _on_gpu() -> Diagnosis:
    import torch

    if not torch.cuda.is_available():
        remedy = "compare the lines GPU and torch; `nvidia-smi` should list the GPU"
        return Diagnosis("CUDA", "torch sees no CUDA device, though the driver knows a GPU", "note", remedy)
    try:
        ones = torch.ones(256, 256, device="cuda")
        correct = float((ones @ ones).sum()) == 256.0**3
    except RuntimeError as error:
        return Diagnosis("CUDA", f"the GPU cannot compute: {first_line(error)}", "note", "run with --device cpu")
    if not correct:
        return Diagnosis("CUDA", "a product on the GPU is wrong", "note", "run with --device cpu, and test the GPU")
    return Diagnosis("CUDA", f"torch computes on {torch.cuda.get_device_name()}")
