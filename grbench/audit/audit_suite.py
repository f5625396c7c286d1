"""Audits the methods of a suite, each in a process of its own, and keeps what came of it beside the suite's results."""

from __future__ import annotations

import inspect
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grbench.cache import cache_folder
from grbench.errors import SuiteError, cut
from grbench.interfaces import EvaluationProtocol, optional
from grbench.registry.discovery import Registry
from grbench.registry.options import suggestion
from grbench.report.format import duration
from grbench.results.audit_file import AuditResult, MethodAudit, SuiteAudit, audit_digest, read_audit, write_audit
from grbench.run.backends.child_process import ChildMessage, End, ForkServer, run_child, terminated_is_interrupted
from grbench.run.data_source import build_dataset
from grbench.run.progress import PlainProgress, progress_for
from grbench.suite.suite import Cell, load_suite
from grbench.temporary import temporary_folder

if TYPE_CHECKING:
    from rich.console import Console

    from grbench.audit.audit import Audit

CHILD = "grbench.audit.run_audits"
MOST_SECONDS = 1800.0
"""A method that takes longer is stopped."""


@dataclass(frozen=True)
class AuditRequest:
    """What `grbench audit` was asked for. suite: a file, or an installed suite's name; only: names of methods or grids;
    audits: names of audits, none = all; own_data: on the suite's own data, cut down; full_size: nothing is cut but
    training."""

    suite: str | Path
    overrides: Sequence[str] = ()
    only: Sequence[str] | None = None
    audits: Sequence[str] = ()
    own_data: bool = False
    full_size: bool = False
    results: Path = Path("results")


def audit_suite(request: AuditRequest, console: Console) -> SuiteAudit:
    """Audits the suite's methods, with the first seed, and writes what came of it after each, so that an interrupted
    audit keeps what is done. Methods that were not audited now stay in the file as they were.

    Raises GRBenchError, before anything runs, where the request cannot be met.
    """
    registry = Registry.load(signature_cache=cache_folder())
    suite = load_suite(request.suite, request.overrides)
    cells = suite.cells(registry, request.only, 1)
    audits = _chosen(request.audits)
    folder, meanings = request.results / suite.name, {audit.name: audit.meaning for audit in audits}
    former = read_audit(folder)
    if request.own_data and not cells[0].error:
        source = build_dataset(registry, cells[0].dataset)
        source.digest()  # raises where the data is missing
        optional(registry.build("protocols", cells[0].protocol), EvaluationProtocol.check)(source)
    registry.save_signatures()
    progress, done = progress_for(console), list[MethodAudit]()
    try:
        with (
            terminated_is_interrupted(),
            temporary_folder() as place,
            ForkServer(_modules(cells, registry), note=progress.say) as server,
        ):
            children = _Children(server, place, request, audits, progress)
            progress.plan([None] * len(cells))
            for position, cell in enumerate(cells):
                done.append(children.audit(cell, registry, position, len(cells)))
                made = SuiteAudit(suite.name, meanings, tuple(done), title=suite.title)
                write_audit(folder, made.joined(former, list(suite.methods)))
    finally:
        progress.close()
    return made


def _chosen(names: Sequence[str]) -> list[Audit]:
    """The audits of these names, all without names. Raises SuiteError for an unknown one."""
    from grbench.audit.audits import AUDITS

    for name in names:
        if name not in AUDITS:
            raise SuiteError(f"--audit {cut(name)}: there is no such audit; {suggestion(name, AUDITS)}")
    return [audit for audit in AUDITS.values() if audit.name in names or not names]


def _modules(cells: Sequence[Cell], registry: Registry) -> list[str]:
    """What the children import besides the core."""
    able = [cell for cell in cells if cell.error is None]
    plugins = {plugin for cell in able for plugin in cell.plugins()}
    modules = {inspect.unwrap(registry.get(*plugin).factory).__module__ for plugin in plugins}
    # The first optimizer of a process imports torch's compiler, which takes as long as importing all the rest of torch.
    return sorted({CHILD, *modules, *("torch._dynamo" for cell in able if cell.method.stages)})


@dataclass(frozen=True)
class _Children:
    """Where methods are audited. place: a temporary folder for all of them."""

    server: ForkServer
    place: Path
    request: AuditRequest
    audits: Sequence[Audit]
    progress: PlainProgress

    def audit(self, cell: Cell, registry: Registry, position: int, total: int) -> MethodAudit:
        """Audits one method, number `position` (0 = first) of so many."""
        heading, progress = f"[{position + 1}/{total}] {cell.method.name}", self.progress
        digest, began = audit_digest(cell, registry), time.monotonic()
        progress.start(heading, position)
        results, facts = list[AuditResult](), dict[str, ChildMessage]()

        def listen(event: ChildMessage) -> None:
            if event["event"] == "result":
                results.append(AuditResult(**{key: value for key, value in event.items() if key != "event"}))
            facts[event["event"]] = event
            progress.listen(event)

        missing = cell.error or self._run(cell, listen)
        there = {result.audit for result in results}
        results += [audit.unknown(missing) for audit in self.audits if audit.name not in there]
        said = facts.get("audited", {})
        made = MethodAudit(
            cell.method.name,
            digest,
            tuple(results),
            world=said.get("world", ""),
            cut=said.get("cut", {}),
            notes=tuple(said.get("notes", ())),
            cpu_seconds=said.get("cpu_seconds", 0.0),
        )
        seconds = time.monotonic() - began
        progress.end(f"{heading}: {_summary(made)} ({duration(seconds)})", seconds)
        return made

    def _run(self, cell: Cell, listen: Callable[[ChildMessage], None]) -> str:
        """Runs the audits in a child; returns how it ended, the reason why an audit is missing."""
        job = {
            "cell": cell.to_json(),
            "cache": str(self.place / "cache"),
            "audits": [audit.name for audit in self.audits],
            "own_data": self.request.own_data,
            "full_size": self.request.full_size,
        }
        log, tick = self.place / "log", self.progress.tick
        return _how_it_ended(
            run_child(self.server, CHILD, job, log=log, listen=listen, tick=tick, timeout=MOST_SECONDS)
        )


def _summary(audit: MethodAudit) -> str:
    faults = [
        f"{result.audit}: {'LEAK' if result.verdict == 'leak' else 'could not be audited'}"
        for result in audit.results
        if result.verdict != "pass"
    ]
    return ", ".join(faults) or "all pass"


def _how_it_ended(end: End) -> str:
    last = end.log.splitlines()[-1:]
    said = f": {cut(last[0], 200)}" if last else ""
    if end.timed_out:
        return f"stopped after {duration(MOST_SECONDS)}"
    if end.oom_killed:
        return "its process was killed, because memory ran out"
    if end.code < 0:
        return f"its process was killed by signal {-end.code} ({signal.Signals(-end.code).name}){said}"
    return f"its process ended with exit status {end.code}{said}"
