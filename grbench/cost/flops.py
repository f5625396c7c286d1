"""FLOPs of a training step, and the share of the device's peak FLOP/s that training reaches.

The two tell a method that needs many operations from an implementation that executes few of them per second.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Self, cast

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils import flop_counter
from torch.utils.hooks import RemovableHandle
from torch.utils.module_tracker import ModuleTracker

from grbench.cost.meter import synchronize

PROBE_SECONDS = 0.1
"""Seconds for which matrix products are timed where a device's peak is not published."""
PROBE_SIZE = {"cpu": 1024, "cuda": 8192}

TERA = 1e12

PUBLISHED: tuple[tuple[str, dict[str, float]], ...] = (
    # TFLOP/s in vendors' data sheets: dense (not 2:4 sparse), 16-bit products accumulated in float32. The peak of other
    # devices, and of slices of a device, is measured.
    (r"NVIDIA A100-(SXM4|PCIE)-(40|80)GB|NVIDIA A100 80GB PCIe", {"fp32": 19.5, "tf32": 156, "half": 312}),
    (r"NVIDIA H100 80GB HBM3", {"fp32": 66.9, "tf32": 494.7, "half": 989.4}),
    (r"NVIDIA H100 PCIe", {"fp32": 51.2, "tf32": 378, "half": 756}),
    (r"NVIDIA H100 NVL", {"fp32": 60, "tf32": 417.5, "half": 835.5}),
    (r"NVIDIA H200", {"fp32": 66.9, "tf32": 494.7, "half": 989.4}),
    (r"NVIDIA H200 NVL", {"fp32": 60, "tf32": 417.5, "half": 835.5}),
    (r"NVIDIA L4", {"fp32": 30.3, "tf32": 60, "half": 121}),
    (r"NVIDIA L40S", {"fp32": 91.6, "tf32": 183, "half": 362}),
    (r"NVIDIA A10", {"fp32": 31.2, "tf32": 62.5, "half": 125}),
    (r"NVIDIA GeForce RTX 4090", {"fp32": 82.6, "tf32": 82.6, "half": 165.2}),
    (r"NVIDIA GeForce RTX 3090", {"fp32": 35.6, "tf32": 35.6, "half": 71}),
    (r"(NVIDIA )?Tesla V100-SXM2-(16|32)GB", {"fp32": 15.7, "fp16": 125}),
    (r"(NVIDIA )?Tesla T4", {"fp32": 8.1, "fp16": 65}),
)


class FlopCount(AbstractContextManager["FlopCount"]):
    """A context that counts the floating-point operations executed in it, with torch's counter: matrix products,
    attention and convolutions; a multiply-add counts as two. Causal attention counts as if it were not masked, as in
    torch's counter.

    Backward passes are counted, optimizer steps are not. Counting does not change any result.
    """

    def __init__(self) -> None:
        self._counter = flop_counter.FlopCounterMode(display=False, custom_mapping=_additional_formulas())
        self._counter.mod_tracker = _NoModules()
        self._optimizer_flops = 0
        self._hooks: list[RemovableHandle] = []

    @property
    def flops(self) -> int:
        """FLOPs counted so far."""
        return int(self._counter.get_total_flops()) - self._optimizer_flops

    def __enter__(self) -> FlopCount:
        self._hooks = [
            register_optimizer_step_pre_hook(lambda *_: self._add_optimizer_flops(-1)),
            register_optimizer_step_post_hook(lambda *_: self._add_optimizer_flops(1)),
        ]
        self._counter.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        self._counter.__exit__(*raised)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def _add_optimizer_flops(self, sign: int) -> None:
        self._optimizer_flops += sign * int(self._counter.get_total_flops())


class _NoModules(ModuleTracker):
    """In place of torch's record of the module that runs, for sums by module, which are not asked for. Its hooks on
    gradients fail under no_grad where a module hands on a view of a parameter."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None: ...


def _additional_formulas() -> dict[Any, Any]:
    """{operation: formula} for operations that torch's counter lacks: in-place products and attention on the CPU."""
    aten = torch.ops.aten
    formulas = {
        aten.addmm_: flop_counter.addmm_flop,
        aten.baddbmm_: flop_counter.baddbmm_flop,
        aten._scaled_dot_product_flash_attention_for_cpu: flop_counter.sdpa_flop,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_counter.sdpa_backward_flop,
    }
    return {operation: _without_out_shape(cast(Any, formula)) for operation, formula in formulas.items()}


def _without_out_shape(formula: Callable[..., Any]) -> Callable[..., int]:
    """Adapts a torch formula, which takes the arguments' shapes only, to the counter, which passes `out_shape` too."""
    return lambda *shapes, out_shape=None, **_: int(formula(*shapes))  # noqa: ARG005


def utilisation(
    flops_per_step: int | None, steps_per_second: float | None, peak: Callable[[], tuple[float, str]]
) -> dict[str, Any]:
    """The record's entries: FLOPs per step, TFLOP/s reached, the device's peak with its source, and the share of it.

    Rates are None where no step was counted or timed. peak: returns (TFLOP/s, source), as `device_peak` does; called
    only when needed, because measuring a peak that is not published takes PROBE_SECONDS.
    """
    if not flops_per_step or not steps_per_second:
        return dict.fromkeys(
            ("train_flops_per_step", "train_tflops_per_second", "peak_tflops_per_second", "peak", "train_share_of_peak")
        ) | {"train_flops_per_step": flops_per_step}
    reached = flops_per_step * steps_per_second / TERA
    peak_tflops, source = peak()
    return {
        "train_flops_per_step": flops_per_step,
        "train_tflops_per_second": reached,
        "peak_tflops_per_second": peak_tflops,
        "peak": source,
        "train_share_of_peak": reached / peak_tflops,
    }


def device_peak(device: torch.device | str, precision: str) -> tuple[float, str]:
    """(peak TFLOP/s of the device at a training precision (fp32, bf16, fp16), the source of the number)."""
    device = torch.device(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        used = "tf32" if precision == "fp32" and torch.get_float32_matmul_precision() != "highest" else precision
        published = published_peak(name, used)
        if published is not None:
            return published, f"published for {name}, dense {used}"
    return measured_peak(device, precision)


def published_peak(name: str, precision: str) -> float | None:
    """Peak TFLOP/s in the data sheet. name: of the device, as its driver reports it. None where it is not listed."""
    for pattern, peaks in PUBLISHED:
        if re.fullmatch(pattern, name):
            return peaks.get(precision, peaks.get("half") if precision in ("bf16", "fp16") else None)
    return None


@torch.no_grad()
def measured_peak(device: torch.device, precision: str) -> tuple[float, str]:
    """(TFLOP/s of the fastest of several square matrix products in the training precision, a description of it)."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    size = PROBE_SIZE.get(device.type, PROBE_SIZE["cpu"])
    left = torch.full((size, size), 0.5, dtype=kind, device=device)
    product = torch.mm(left, left)  # warm-up: the first product initialises the library
    synchronize(device)
    fastest, until = float("inf"), time.perf_counter() + PROBE_SECONDS
    while (began := time.perf_counter()) < until:
        torch.mm(left, left, out=product)
        synchronize(device)
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * size**3 / fastest / TERA, f"measured: a matmul of {size} x {size}, {precision}"
