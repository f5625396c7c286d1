"""How much of the device a training step uses: its operations counted, over what the device can do at most.

A slow method does many operations, a slow implementation few of them a second: this tells one from the other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils import flop_counter
from torch.utils.hooks import RemovableHandle

from grbench.cost.meter import synchronize

PROBE_SECONDS = 0.3
"""How long the matrix product runs that stands for a device whose peak nobody publishes."""
PROBE_SIZE = {"cpu": 1024, "cuda": 8192}

TERA = 1e12

PUBLISHED: tuple[tuple[str, dict[str, float]], ...] = (
    # Vendors' data sheets, dense (not 2:4 sparse), 16-bit products added up in float32; TFLOP/s. What is not listed,
    # or is only a slice of a device, is measured.
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
    """Counts the floating-point operations of what runs inside, by torch's own counter: matrix products, attention and
    convolutions, a multiplication and an addition as two. Causal attention counts whole, as torch does it.

    Backward passes count where they are run inside, the steps of optimizers do not; the numbers that come out are the
    same as without.
    """

    def __init__(self) -> None:
        self._counter = flop_counter.FlopCounterMode(display=False, custom_mapping=_not_known_to_torch())
        self._of_optimizers = 0
        self._hooks: list[RemovableHandle] = []

    @property
    def flops(self) -> int:
        """What was counted so far."""
        return int(self._counter.get_total_flops()) - self._of_optimizers

    def __enter__(self) -> FlopCount:
        self._hooks = [
            register_optimizer_step_pre_hook(lambda *_: self._add_of_optimizers(-1)),
            register_optimizer_step_post_hook(lambda *_: self._add_of_optimizers(1)),
        ]
        self._counter.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        self._counter.__exit__(*raised)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def _add_of_optimizers(self, sign: int) -> None:
        self._of_optimizers += sign * int(self._counter.get_total_flops())


def _not_known_to_torch() -> dict[Any, Any]:
    """In-place products and the CPU's attention, which torch's counter leaves out."""
    aten = torch.ops.aten
    alike = {
        aten.addmm_: flop_counter.addmm_flop,
        aten.baddbmm_: flop_counter.baddbmm_flop,
        aten._scaled_dot_product_flash_attention_for_cpu: flop_counter.sdpa_flop,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_counter.sdpa_backward_flop,
    }
    return {operation: _of_shapes(cast(Any, formula)) for operation, formula in alike.items()}


def _of_shapes(formula: Callable[..., Any]) -> Callable[..., int]:
    """The counter hands a formula shapes, among them that of the result, which torch's own do not take twice."""
    return lambda *shapes, out_shape=None, **_: int(formula(*shapes))  # noqa: ARG005


def utilisation(
    flops_per_step: int | None, steps_per_second: float | None, device: torch.device | str, precision: str
) -> dict[str, Any]:
    """What the record keeps: operations a step, TFLOP/s, the device's peak and where it is from, the share of it.

    Nothing is known where no step was counted. A peak that is not published takes `PROBE_SECONDS` to measure.
    """
    if not flops_per_step or not steps_per_second:
        return dict.fromkeys(
            ("train_flops_per_step", "train_tflops_per_second", "peak_tflops_per_second", "peak", "train_share_of_peak")
        ) | {"train_flops_per_step": flops_per_step}
    reached = flops_per_step * steps_per_second / TERA
    peak, source = device_peak(device, precision)
    return {
        "train_flops_per_step": flops_per_step,
        "train_tflops_per_second": reached,
        "peak_tflops_per_second": peak,
        "peak": source,
        "train_share_of_peak": reached / peak,
    }


def device_peak(device: torch.device | str, precision: str) -> tuple[float, str]:
    """TFLOP/s that the device can reach at a training precision (fp32, bf16, fp16), and where the figure is from."""
    device = torch.device(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        used = "tf32" if precision == "fp32" and torch.get_float32_matmul_precision() != "highest" else precision
        published = published_peak(name, used)
        if published is not None:
            return published, f"published for {name}, dense {used}"
    return measured_peak(device, precision)


def published_peak(name: str, precision: str) -> float | None:
    """TFLOP/s by the data sheet, for a device's name as its driver tells it; None where it is not listed."""
    for pattern, peaks in PUBLISHED:
        if re.fullmatch(pattern, name):
            return peaks.get(precision, peaks.get("half") if precision in ("bf16", "fp16") else None)
    return None


@torch.no_grad()
def measured_peak(device: torch.device, precision: str) -> tuple[float, str]:
    """The fastest of some square matrix products, in the precision that training multiplies in."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    size = PROBE_SIZE.get(device.type, PROBE_SIZE["cpu"])
    left = torch.full((size, size), 0.5, dtype=kind, device=device)
    product = torch.mm(left, left)  # the first one also sets the library up
    synchronize(device)
    fastest, until = float("inf"), time.perf_counter() + PROBE_SECONDS
    while (began := time.perf_counter()) < until:
        torch.mm(left, left, out=product)
        synchronize(device)
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * size**3 / fastest / TERA, f"measured: a matmul of {size} x {size}, {precision}"
