"""What is done before the cells of a plan are run: the store is built, the protocol tried, memory planned."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench.errors import RunError
from grbench.report.format import duration
from grbench.run.backends.backend import Machine, Needs, Site, Worker
from grbench.run.backends.child_process import ChildMessage
from grbench.run.memory_plan import MemoryPlan
from grbench.run.plan import Plan
from grbench.run.prepare import refusal
from grbench.run.progress import PlainProgress
from grbench.temporary import beside

if TYPE_CHECKING:
    from grbench.run.run_request import RunRequest


WORTH_SAYING = 1.0
"""Seconds of preparation from which on it has a line of its own."""


@dataclass(frozen=True)
class Ready:
    """What the child that prepares has said. limits: {ram, gpu} in bytes, empty where it planned no memory."""

    facts: dict[str, Any]
    plans: list[MemoryPlan]
    limits: dict[str, Any]

    @property
    def machine(self) -> Machine:
        """What cells may use together."""
        return Machine(self.limits.get("ram"), tuple(self.facts.get("gpus", ())))

    @property
    def needs(self) -> dict[str, Needs]:
        """{method: what a cell of it takes}, of the methods that are trained."""
        return {plan.method: Needs(plan.ram_bytes, plan.gpu_bytes, plan.devices) for plan in self.plans}


def refuse_too_large(ready: Ready, request: RunRequest, site: Site | None = None) -> None:
    """Raises RunError naming the methods that cannot fit and what would, unless they are to run all the same. site:
    where they would run, None = where the child was."""
    if request.oversize or not ready.limits:
        return
    limits = ready.limits if site is None else site.limits(ready.limits)
    refusals = [plan.refusal(limits["ram"], limits["gpu"]) for plan in ready.plans]
    if lines := [line for line in refusals if line]:
        raise RunError("\n".join([*lines, "leave them out (--only), or run them all the same with --oversize"]))


def refuse_devices(plan: Plan, ready: Ready, request: RunRequest) -> None:
    """Raises RunError naming the methods that ask for more GPUs than there are for a cell on this machine; what there
    is on a cluster, its back-end knows."""
    if request.backend != "local" or not ready.facts.get("gpus"):  # on the CPU a device is a process
        return
    there, jobs, lines = len(ready.facts["gpus"]), request.jobs or 1, dict[str, None]()
    for method in (each.cell.method for each in plan.to_run if each.cell.error is None):
        key = f"{plan.suite.path}: methods.{method.name}.training.devices: {method.devices}"
        if method.devices > there:
            gpus = f"{there} GPU{'s' * (there != 1)}"
            lines[f"{key}, and torch sees {gpus} here; set it to {there}, or run the suite with --device cpu"] = None
        elif method.devices > 1 and jobs > 1:
            lines[f"{key}, and with --jobs {jobs} each cell has one GPU; run it with --jobs 1"] = None
    if lines:
        raise RunError("\n".join(lines))


def prepare(plan: Plan, request: RunRequest, worker: Worker, progress: PlainProgress, log: Path) -> Ready:
    """Builds the store, tries the protocol and plans memory; raises GRBenchError where the first two cannot be.

    log: keeps what the child printed where it fails; other runs may use the same folder meanwhile.
    """
    able = [planned.cell for planned in plan.to_do if planned.cell.error is None]
    methods = {planned.cell.method.name: planned.cell for planned in plan.to_run if planned.cell.error is None}
    trained = [name for name, cell in methods.items() if cell.method.stages]
    job = {
        "cell": able[0].to_json(),
        "cache": None if request.cache is None else str(request.cache),
        "device": request.device,
        "filters": sorted({cell.method.filters for cell in methods.values()}),
        "suite": plan.suite.path,
        "validates": any(
            stage.training.get("validate_every") for cell in methods.values() for stage in cell.method.stages
        ),
        "methods": [cell.to_json() for cell in methods.values()],
    }
    found: dict[str, ChildMessage] = {}
    plans: dict[str, MemoryPlan] = {}

    def listen(event: ChildMessage) -> None:
        found[event["event"]] = event
        if event["event"] == "planned":
            plans[event["plan"]["method"]] = MemoryPlan.from_json(event["plan"])
        elif event["event"] == "note":
            progress.say(f"note: {event['text']}")
        elif event["event"] == "place":
            progress.start(f"preparing the data ({event['name']})", 0)
        progress.listen(event)

    began = time.monotonic()
    progress.start("preparing the data", 0)
    with beside(log) as said:
        end = worker.run("grbench.run.prepare", job, log=said, listen=listen, tick=progress.tick)
        if "prepared" in found or "refused" in found:
            log.unlink(missing_ok=True)
        else:
            said.replace(log)
    if "refused" in found:
        raise refusal(found["refused"])
    if "prepared" not in found:
        kept = "" if request.dry_run else f"; see {log}"
        raise RunError(f"preparing the data failed: {end.how}{kept}\n{end.log}")
    if (seconds := time.monotonic() - began) >= WORTH_SAYING:
        progress.say(f"data prepared in {duration(seconds)}: {found['prepared']['store']}")
    for remark in found["prepared"]["remarks"]:
        progress.say(f"note: {remark}")
    # A child that ends while it plans has prepared all the same: what a plug-in does to it, its cell will say.
    why = f"planning was not finished ({end.how})"
    for name in trained:
        plans.setdefault(name, MemoryPlan(name, 0, False, unknown=why))
    limits = {key: found["limits"][key] for key in ("ram", "gpu")} if "limits" in found else {}
    return Ready(found["prepared"], [plans[name] for name in trained], limits)
