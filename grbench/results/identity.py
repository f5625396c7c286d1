"""Which experiment a cell is: everything that can change its numbers, and nothing else.

An identity has three parts. `training` is what the trained model depends on, `ranking` what every user's list depends
on besides, and `metrics` what the scores depend on besides: adding a metric changes neither of the other two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grbench.registry.component import Component
from grbench.registry.discovery import BrokenPluginError, Registry
from grbench.registry.options import bound_contents, flat_values
from grbench.registry.source_hash import library_version, library_versions, room_hash, source_hash
from grbench.suite.suite import Cell

# Rooms of the core, as folders or single modules: all that stands in them counts, and nothing else of the core does.
# The interfaces count for the defaults of their methods.
TRAINING_ROOMS = ("data", "training", "interfaces", "types")
RANKING_ROOMS = ("evaluation",)
# Libraries that every cell computes with. Others count with the plug-in that imports them.
LIBRARIES = ("numpy", "torch")
# Training options that change how soon a number is reached, never the number.
_SPEED_ONLY = frozenset({"workers"})


def cell_identity(cell: Cell, registry: Registry, dataset_digest: str) -> dict[str, Any]:
    """{training, ranking, metrics}, JSON-ready: resolved options, data, protocol, seed, the content of each file that
    an option names, and for each plug-in its distribution, version, source and libraries. A broken plug-in has no
    source: repaired, the cell is another one.

    Left out are the names of suite and method, trackers, the number of workers, the length of the lists, and where
    files lie: `dataset_digest` says what the dataset's paths hold.
    Raises SuiteError, with the key of the suite, for a file that cannot be read.
    """
    method, where = cell.method, f"methods.{cell.method.name}"
    return {
        "training": {
            "dataset": {**_describe_dataset(registry, cell.dataset), "digest": dataset_digest},
            "protocol": _describe(registry, "protocols", cell.protocol, "protocol"),
            "tokenizer": _describe(registry, "tokenizers", method.tokenizer, f"{where}.tokenizer"),
            "encoder": _describe(registry, "encoders", method.encoder, f"{where}.encoder"),
            "stages": [_describe_stage(registry, cell, place, where) for place in range(len(method.stages))],
            "seed": cell.seed,
            "core": room_hash(*TRAINING_ROOMS),
            "libraries": {name: library_version(name) for name in LIBRARIES},
        },
        "ranking": _describe_ranking(registry, cell, where),
        "metrics": [
            _describe(registry, "metrics", metric, f"metrics.{index}") for index, metric in enumerate(cell.metrics)
        ],
    }


def training_digest(identity: Mapping[str, Any]) -> str:
    """16 hex digits: cells that have them in common train the same model."""
    return _digest({"training": identity["training"]})


def lists_digest(identity: Mapping[str, Any]) -> str:
    """16 hex digits: cells that have them in common show every user the same items."""
    return _digest({"training": identity["training"], "ranking": identity["ranking"]})


def cell_digest(identity: Mapping[str, Any]) -> str:
    """16 hex digits that name an identity; the order of its keys does not matter."""
    return _digest(identity)


def _digest(facts: Mapping[str, Any]) -> str:
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _describe_stage(registry: Registry, cell: Cell, place: int, where: str) -> dict[str, Any]:
    """How a stage is trained. Its name counts, because its losses are told it."""
    stage = cell.method.stages[place]
    if stage.name:
        where = f"{where}.stages.{place}"
    losses = {"loss" if len(stage.losses) == 1 else f"loss.{i}": loss for i, loss in enumerate(stage.losses)}
    described: dict[str, Any] = {
        "name": stage.name,
        "targets": None if stage.targets is None else sorted(set(stage.targets)),
        "losses": [
            {**_describe(registry, "losses", loss, f"{where}.{key}"), "weight": weight}
            for key, (loss, weight) in losses.items()
        ],
        "trainer": _describe(registry, "trainers", stage.trainer, f"{where}.trainer"),
        "optimizer": _describe(registry, "optimizers", stage.optimizer, f"{where}.optimizer"),
        "training": {key: value for key, value in stage.training.items() if key not in _SPEED_ONLY},
    }
    if stage.training.get("validate_every"):
        # What chooses among the states of training decides which model comes out of it.
        described["validation"] = {
            **_describe_ranking(registry, cell, f"methods.{cell.method.name}"),
            "metric": _describe_selection(registry, cell, stage.training["select"]),
        }
    return described


def _describe_ranking(registry: Registry, cell: Cell, where: str) -> dict[str, Any]:
    return {
        "retriever": _describe(registry, "retrievers", cell.method.retriever, f"{where}.retriever"),
        "filters": list(cell.method.filters),
        "core": room_hash(*RANKING_ROOMS),
    }


def _describe_selection(registry: Registry, cell: Cell, name: str) -> dict[str, Any] | None:
    """The metric that training selects by; None where its plug-in is broken."""
    for index, component in enumerate(cell.metrics):
        where = f"metrics.{index}"
        try:
            metric = registry.build("metrics", component, where=where)
        except BrokenPluginError:
            continue
        if metric.name == name:
            return _describe(registry, "metrics", component, where)
    return None


def _describe_dataset(registry: Registry, dataset: Component) -> dict[str, Any]:
    """The dataset without its paths, which its digest speaks for, and without libraries: its store is made once."""
    try:
        values = flat_values(registry.get("datasets", dataset.name).factory, dataset.options, "dataset")
    except BrokenPluginError:
        values = {}
    places = {name for name, value in values.items() if isinstance(value, Path)}
    plugin = _describe_plugin(registry, "datasets", dataset.name)
    plugin.pop("libraries")
    options = {name: value for name, value in dataset.options.items() if name not in places}
    return {"name": dataset.name, "options": options, "plugin": plugin}


def _describe(registry: Registry, kind: str, component: Component, where: str) -> dict[str, Any]:
    try:
        options = bound_contents(registry.get(kind, component.name).factory, component.options, where)
    except BrokenPluginError:
        options = component.options
    return {
        "name": component.name,
        "options": options,
        "plugin": _describe_plugin(registry, kind, component.name),
    }


def _describe_plugin(registry: Registry, kind: str, name: str) -> dict[str, Any]:
    distribution, version = registry.origin(kind, name)
    source, libraries = None, dict[str, str]()
    try:
        factory = registry.get(kind, name).factory
    except BrokenPluginError:
        pass
    else:
        source, libraries = source_hash(factory), library_versions(factory)
    return {
        "distribution": distribution,
        "version": version,
        "source": source,
        "libraries": {library: found for library, found in libraries.items() if library not in LIBRARIES},
    }
