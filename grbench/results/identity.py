"""Which experiment a cell is: everything that can change its number, and nothing else."""

from __future__ import annotations

import hashlib
import json
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

import grbench
import grbench.data
from grbench.registry.component import Component
from grbench.registry.discovery import BrokenPluginError, Registry
from grbench.registry.source_hash import modules_hash, source_hash
from grbench.suite.method import Method
from grbench.suite.suite import Cell

# What of the core a number passes through. What these import counts too, unless it only finds, checks, measures or
# keeps: a reworded message runs nothing again.
_COMPUTES = ("grbench.run.run_cell", "grbench.training.loop", "grbench.evaluation.ranking", "grbench.types")
_KEEPS_BOOKS = frozenset(
    f"grbench.{module}"
    for module in (
        *("cost.flops", "cost.meter", "errors", "hookspecs", "interfaces"),
        *("registry.discovery", "registry.options", "registry.source_hash", "results.identity", "results.record"),
        *("run.child_process", "suite.file", "suite.grid", "suite.json_schema", "suite.method", "suite.suite"),
    )
)
# Training options that change how soon a number is reached, never the number.
_SPEED_ONLY = frozenset({"workers"})
_PLACE = frozenset({"path"})


def cell_identity(cell: Cell, registry: Registry, dataset_digest: str) -> dict[str, Any]:
    """All that the cell's number depends on, JSON-ready: resolved options, data, protocol, metrics, seed, and for each
    plug-in its distribution, version and source. A broken plug-in has no source: repaired, the cell is another one.

    Left out are the names of suite and method, trackers, the number of workers, and the dataset's option `path`: where
    the data lies does not matter, and `dataset_digest` says what lies there.
    """
    method = cell.method
    return {
        "dataset": {
            **_describe(registry, "datasets", cell.dataset, leave_out=_PLACE),
            "digest": dataset_digest,
        },
        "protocol": {"name": cell.protocol.name, "options": cell.protocol.options},
        "metrics": [_describe(registry, "metrics", metric) for metric in cell.metrics],
        "tokenizer": {
            **_describe(registry, "tokenizers", method.tokenizer),
            "content": _content(registry, method.tokenizer),
        },
        "encoder": _describe(registry, "encoders", method.encoder),
        "losses": [{**_describe(registry, "losses", loss), "weight": weight} for loss, weight in method.losses],
        "retriever": _describe(registry, "retrievers", method.retriever),
        **_describe_course(registry, method),
        "filters": list(method.filters),
        "seed": cell.seed,
        "grbench": {"version": grbench.__version__, "source": core_hash()},
    }


def cell_digest(identity: Mapping[str, Any]) -> str:
    """16 hex digits that name an identity; the order of its keys does not matter."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@cache
def core_hash() -> str:
    """sha256 over the modules of the core that can change a number."""
    data = [f"grbench.data.{module.name}" for module in pkgutil.iter_modules(grbench.data.__path__)]
    return modules_hash([*_COMPUTES, *data], leave_out=_KEEPS_BOOKS)


def _content(registry: Registry, tokenizer: Component) -> str | None:
    """What the tokenizer's `digest`, if it has one, says of the files that it reads."""
    try:
        built = registry.build("tokenizers", tokenizer)
    except BrokenPluginError:
        return None
    return str(built.digest()) if hasattr(built, "digest") else None


def _describe_course(registry: Registry, method: Method) -> dict[str, Any]:
    """How the method is trained. A stage's name is none of it, nor what every stage has set otherwise."""

    def learning(optimizer: Component | None, training: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "optimizer": _describe(registry, "optimizers", optimizer) if optimizer else None,
            "training": {key: value for key, value in training.items() if key not in _SPEED_ONLY},
        }

    if not method.stages:
        return learning(method.optimizer, method.training)
    return {
        "stages": [
            {
                "targets": None if stage.targets is None else sorted(set(stage.targets)),
                **learning(stage.optimizer, stage.training),
            }
            for stage in method.stages
        ]
    }


def _describe(
    registry: Registry, kind: str, component: Component, leave_out: frozenset[str] = frozenset()
) -> dict[str, Any]:
    distribution, version = registry.origin(kind, component.name)
    try:
        source = source_hash(registry.get(kind, component.name).factory)
    except BrokenPluginError:
        source = None
    return {
        "name": component.name,
        "options": {key: value for key, value in component.options.items() if key not in leave_out},
        "plugin": {"distribution": distribution, "version": version, "source": source},
    }
