"""Methods with plug-ins that leak, put together for audits in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import leaks

from grbench.audit.audited_method import AuditedMethod
from grbench.audit.audits import AUDITS
from grbench.audit.run_audits import audit_results
from grbench.audit.world import World, cut_down, made_up_store
from grbench.registry.discovery import Registry
from grbench.results.audit_file import AuditResult
from grbench.suite.suite import Cell, load_suite

CLEAN: dict[str, Any] = {"encoder": "Vectors", "loss": "full_softmax"}
SHORT = {"training": {"batch_size": 16}}


def registry_with_leaks() -> Registry:
    registry = Registry.load()
    if "Vectors" not in registry.names("encoders"):  # not installed beside it
        registry.add("leaks", "leaks", "1", lambda: leaks)
    return registry


def cell_of(
    registry: Registry, folder: Path, method: dict[str, Any], protocol: Any = "leave_last_out", metric: Any = None
) -> Cell:
    """The only cell of a suite with this method."""
    suite = {
        "suite": "audited",
        "dataset": {"name": "interactions", "path": "nowhere"},
        "protocol": protocol,
        "metrics": [metric or "hit_rate@5"],
        "methods": {"method": {**SHORT, **method}},
    }
    path = folder / "suite.yaml"
    path.write_text(json.dumps(suite))
    (cell,) = load_suite(path).cells(registry)
    assert cell.error is None
    return cell


def small_world(cache: Path) -> World:
    """160 users of the made-up store, with at most ten events each."""
    return World(cut_down(made_up_store(cache), users=160, events=10), "made up", own=False)


def audited(registry: Registry, folder: Path, method: dict[str, Any], **options: Any) -> AuditedMethod:
    cell, cache = cell_of(registry, folder, method, **options), folder / "cache"
    return AuditedMethod(cell, registry, small_world(cache), cache=cache)


def results_of(method: AuditedMethod, *names: str) -> dict[str, AuditResult]:
    """Of the audits named, or of all."""
    chosen = [AUDITS[name] for name in names or AUDITS]
    return {result.audit: result for result in audit_results(method, chosen)}
