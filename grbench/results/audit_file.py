"""What the leak audits of a suite came to: `audit.json` in the suite's folder of results."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pydantic

from grbench import __version__
from grbench.errors import RunError, cut
from grbench.registry.discovery import BrokenPluginError, Registry
from grbench.registry.options import explained
from grbench.registry.source_hash import room_hash, source_hash
from grbench.results.record import MOVE_IT, now
from grbench.results.record_files import AUDIT_FILE
from grbench.suite.suite import Cell
from grbench.temporary import beside

AUDIT_SCHEMA = 1
AUDITED_ROOMS = ("audit", "data", "training", "evaluation", "interfaces", "types")
"""Rooms of the core by whose change an audit becomes stale."""

Verdict = Literal["pass", "leak", "unknown"]
"""unknown: the audit could not be made, which counts as a failure."""


@dataclass(frozen=True)
class AuditResult:
    """What one audit of one method came to. detail: what was found, and with `pass` what was looked at. seconds: of one
    core; a run that several audits need counts for the first of them."""

    audit: str
    verdict: Verdict
    detail: str
    seconds: float = 0.0


@dataclass(frozen=True)
class MethodAudit:
    """All audits of a method.

    digest: of its options and of the sources that the audits ran; another one than `audit_digest` gives now means that
    the audit is stale.
    world: the data that it was audited on. cut: {option: [its value in the suite, the value audited]}.
    notes: sentences about what was replaced for the audit. cpu_seconds: of its process.
    """

    method: str
    digest: str
    results: tuple[AuditResult, ...]
    world: str = ""
    cut: dict[str, list[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cpu_seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether all audits were made and passed."""
        return all(result.verdict == "pass" for result in self.results)

    def with_others_of(self, former: MethodAudit | None) -> MethodAudit:
        """With those results of a former audit of the same digest that this one lacks."""
        if former is None or former.digest != self.digest:
            return self
        made = {result.audit for result in self.results}
        return replace(self, results=(*self.results, *(each for each in former.results if each.audit not in made)))


@pydantic.with_config(pydantic.ConfigDict(extra="ignore"))
@dataclass(frozen=True)
class SuiteAudit:
    """The content of the file. meanings: {audit: what a failure of it means}."""

    suite: str
    meanings: dict[str, str]
    methods: tuple[MethodAudit, ...]
    title: str | None = None
    grbench: str = __version__
    finished: str = field(default_factory=now)

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps({"schema": AUDIT_SCHEMA, **asdict(self)}, indent=1) + "\n"

    def joined(self, former: SuiteAudit | None, order: Sequence[str]) -> SuiteAudit:
        """This audit, with the methods of a former one that were not audited again and that the suite still has, and
        with the audits that were not made again of methods that are the same. order: names of the suite's methods."""
        known = {} if former is None else {each.method: each for each in former.methods}
        known |= {each.method: each.with_others_of(known.get(each.method)) for each in self.methods}
        meanings = self.meanings if former is None else former.meanings | self.meanings
        return replace(self, methods=tuple(known[name] for name in order if name in known), meanings=meanings)


def audit_digest(cell: Cell, registry: Registry) -> str:
    """16 hex digits of what the verdicts on a method depend on: its options, its plug-ins' sources, the core's rooms.
    The seed is not part of it, nor is the content of files and data."""
    options = {key: value for key, value in cell.to_json().items() if key not in ("suite", "seed", "error")}
    sources: dict[str, str | None] = {}
    for kind, name in sorted(cell.plugins()):
        try:
            sources[f"{kind}.{name}"] = source_hash(registry.get(kind, name).factory)
        except BrokenPluginError:
            sources[f"{kind}.{name}"] = None
    facts = {"options": options, "sources": sources, "core": room_hash(*AUDITED_ROOMS)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def write_audit(folder: Path, audit: SuiteAudit) -> Path:
    """Writes the file in the suite's folder of results, atomically. Raises RunError where that cannot be."""
    path = folder / AUDIT_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with beside(path) as partial:
            with partial.open("w", encoding="utf-8") as file:
                file.write(audit.to_json())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def read_audit(folder: Path) -> SuiteAudit | None:
    """The audit in a suite's folder of results; None where there is none. Raises RunError where it is damaged or of a
    newer schema."""
    path = folder / AUDIT_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        values = json.loads(text)
    except ValueError as error:
        raise RunError(f"{path}: not an audit of grbench ({error}); {MOVE_IT}") from error
    schema = values.get("schema") if isinstance(values, dict) else None
    if type(schema) is not int:
        raise RunError(f"{path}: not an audit of grbench (no schema version); {MOVE_IT}")
    if schema > AUDIT_SCHEMA:
        raise RunError(
            f"{path}: written by a newer grbench (audit schema {schema}, this one reads up to {AUDIT_SCHEMA}); upgrade "
            "grbench or choose another results folder"
        )
    try:
        return _audits().validate_json(text)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        key = cut(".".join(map(str, problem["loc"])))
        raise RunError(f"{path}: {key}: {explained(problem)}; the audit is damaged, {MOVE_IT}") from error


@cache
def _audits() -> pydantic.TypeAdapter[SuiteAudit]:
    return pydantic.TypeAdapter(SuiteAudit)
