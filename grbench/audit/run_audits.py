"""The audits of one method; `main` is what a child process does, so that a plug-in that crashes spoils nothing else."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from grbench.audit.audit import Audit
from grbench.audit.audited_method import AuditedMethod
from grbench.audit.audits import AUDITS
from grbench.audit.changed_futures import UnstableSplitError
from grbench.audit.world import open_world
from grbench.errors import GRBenchError, first_line
from grbench.registry.discovery import Registry
from grbench.results.audit_file import AuditResult
from grbench.run.backends.child_process import ChildMessages
from grbench.suite.suite import Cell
from grbench.training.numerics import flush_denormals


def audit_results(method: AuditedMethod, audits: Iterable[Audit]) -> Iterator[AuditResult]:
    """The results of the audits, one after another; `unknown` where a plug-in raises."""
    for audit in audits:
        started = time.process_time()
        try:
            result = audit.run(method)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and what it raised is the result
            traceback.print_exc()
            result = audit.unknown(reason(error))
        yield replace(result, seconds=round(time.process_time() - started, 3))


def reason(error: Exception) -> str:
    """Why a method could not be audited."""
    own = isinstance(error, GRBenchError | UnstableSplitError)
    return first_line(error) if own else f"{type(error).__name__}: {first_line(error)}"


def main(job: Mapping[str, Any], events: ChildMessages) -> int:
    """The child. job: {cell, cache: a folder for this audit, audits: names, own_data, full_size}. Says `result` for
    each audit, and `audited` once all are made."""
    flush_denormals()  # as a cell does
    torch.set_num_threads(1)  # fastest for so little work, and repeatable
    cache = Path(job["cache"])
    cell, registry = Cell.from_json(job["cell"]), Registry.load()
    audits = [AUDITS[name] for name in job["audits"]]
    events("phase", name="making the world")
    try:
        world = open_world(cell.dataset, registry, cache, own_data=job["own_data"])
        os.environ["GRBENCH_CACHE"] = str(cache)  # what plug-ins keep for later runs is of no use to them
        method = AuditedMethod(cell, registry, world, cache=cache, full_size=job["full_size"])
    except Exception as error:  # noqa: BLE001 - as above
        traceback.print_exc()
        for audit in audits:
            events("result", **asdict(audit.unknown(reason(error))))
        return 0
    for audit in audits:
        events("phase", name=f"audit {audit.name}")
        for result in audit_results(method, [audit]):
            events("result", **asdict(result))
    events(
        "audited",
        world=world.description,
        cut=method.cuts,
        notes=list(method.notes),
        cpu_seconds=round(time.process_time(), 2),
    )
    return 0
