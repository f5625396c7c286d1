"""The identity of a cell: everything that its numbers depend on, hashed to the digests that name it.

An identity has three parts. The trained model depends on `training`; the ranked lists on `training` and `ranking`; the
scores on all three. Adding a metric changes `metrics` only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grbench.registry.component import Component
from grbench.registry.discovery import BrokenPluginError, Registry
from grbench.registry.options import bound_contents, flat_values
from grbench.registry.source_hash import library_version, library_versions, room_hash, source_hash
from grbench.suite.suite import Cell
from grbench.training.options import VALIDATION_ONLY
from grbench.types import DEFAULT_LIST_LENGTH

# Packages and modules of the core whose source code is part of the identity; no other code of the core is. The
# interfaces are, because their methods have defaults.
TRAINING_ROOMS = ("data", "distributed", "training", "interfaces", "types")
RANKING_ROOMS = ("evaluation",)
# Libraries whose versions are part of every identity; others are part of it through the plug-ins that import them.
LIBRARIES = ("numpy", "torch")
# Training options that change the speed of training but not its result.
_SPEED_ONLY = frozenset({"workers", "shard_tables"})


def cell_identity(cell: Cell, registry: Registry, dataset_digest: str) -> dict[str, Any]:
    """{training, ranking, metrics}, JSON-ready: all options, dataset, protocol, seed, hashes of the files that options
    name, and each plug-in's distribution, version, source hash and libraries. The source of a broken plug-in is None,
    so that the identity changes once the plug-in works.

    Not included: names of suite and method, slices, trackers, number of workers, length of the lists, paths of files;
    `dataset_digest` stands for the content of the dataset's paths that are no DataFile or DataFolder.
    Raises SuiteError, naming the suite's key, for a file that cannot be read.
    """
    method, where = cell.method, f"methods.{cell.method.name}"
    data = data_identity(registry, cell.dataset, cell.protocol, dataset_digest)
    return {
        "training": {
            "dataset": data["dataset"],
            "protocol": data["protocol"],
            "tokenizer": _describe(registry, "tokenizers", method.tokenizer, f"{where}.tokenizer"),
            "encoder": _describe(registry, "encoders", method.encoder, f"{where}.encoder"),
            "stages": [_describe_stage(registry, cell, number, where) for number in range(len(method.stages))],
            "seed": cell.seed,
            "core": data["core"],
            "libraries": {name: library_version(name) for name in LIBRARIES},
        },
        "ranking": _describe_ranking(registry, cell, where),
        "metrics": metric_identities(registry, cell.metrics),
    }


def external_identity(
    cell: Cell, registry: Registry, dataset_digest: str, *, content: str, filters: Sequence[str]
) -> dict[str, Any]:
    """The identity of rankings made elsewhere: {training, ranking, metrics}, as of a cell, with the content of their
    file in place of the method. cell: any of the suite, whose dataset, protocol, metrics and seed count; content: hash
    of the file; filters: that the lists keep to."""
    return {
        "training": {
            "external": content,
            "seed": cell.seed,
            **data_identity(registry, cell.dataset, cell.protocol, dataset_digest),
        },
        "ranking": {"filters": list(filters), "core": room_hash(*RANKING_ROOMS)},
        "metrics": metric_identities(registry, cell.metrics),
    }


def data_identity(registry: Registry, dataset: Component, protocol: Component, dataset_digest: str) -> dict[str, Any]:
    """What of the part `training` the data of a cell depend on: {dataset, protocol, core}."""
    return {
        "dataset": {**_describe_dataset(registry, dataset), "digest": dataset_digest},
        "protocol": _describe(registry, "protocols", protocol, "protocol"),
        "core": room_hash(*TRAINING_ROOMS),
    }


def metric_identities(registry: Registry, metrics: Sequence[Component]) -> list[dict[str, Any]]:
    """The part `metrics` of an identity."""
    return [_describe(registry, "metrics", metric, f"metrics.{index}") for index, metric in enumerate(metrics)]


def dataset_options(registry: Registry, dataset: Component) -> dict[str, Any]:
    """The options of a dataset that are part of its identity: without paths, with the content of files in place of
    theirs."""
    options: dict[str, Any] = _describe_dataset(registry, dataset)["options"]
    return options


def longest_cutoff(metrics: Sequence[Mapping[str, Any]]) -> int:
    """The length of the lists that metrics of an identity look at: their largest `k`."""
    cutoffs = [int(k) for metric in metrics if (k := metric.get("options", {}).get("k"))]
    return max(cutoffs, default=DEFAULT_LIST_LENGTH)


def training_digest(identity: Mapping[str, Any]) -> str:
    """16 hex digits; cells with the same training digest train the same model."""
    return _digest({"training": identity["training"]})


def lists_digest(identity: Mapping[str, Any]) -> str:
    """16 hex digits; cells with the same lists digest rank the same lists for all users."""
    return _digest({"training": identity["training"], "ranking": identity["ranking"]})


def cell_digest(identity: Mapping[str, Any]) -> str:
    """16 hex digits of the whole identity; the order of its keys does not matter."""
    return _digest(identity)


def _digest(facts: Mapping[str, Any]) -> str:
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _describe_stage(registry: Registry, cell: Cell, number: int, where: str) -> dict[str, Any]:
    """Everything that stage `number` (0 = first) depends on; its name too, because losses get it (`start_stage`)."""
    stage = cell.method.stages[number]
    if stage.name:
        where = f"{where}.stages.{number}"
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
        "training": _effective_options(stage.training),
    }
    if stage.training.get("validate_every"):
        # Validation selects the best state, so the trained model depends on the lists and the metric of validation.
        described["validation"] = {
            **_describe_ranking(registry, cell, f"methods.{cell.method.name}"),
            "metric": _describe_selection(registry, cell, stage.training["select"]),
        }
    return described


def _effective_options(training: Mapping[str, Any]) -> dict[str, Any]:
    """The training options that a number can depend on, given the others."""
    unused = set(_SPEED_ONLY)
    if not training.get("validate_every"):
        unused |= {"validate_every", *VALIDATION_ONLY}  # null and 0 are the same
    # The whole batch's negatives, order and mean do not depend on how many devices share it.
    if training.get("gather_targets", True) or training.get("devices", 1) == 1:
        unused |= {"devices", "gather_targets"}
    if training.get("schedule") == "constant":
        unused.add("final_rate")
    return {key: value for key, value in training.items() if key not in unused}


def _describe_ranking(registry: Registry, cell: Cell, where: str) -> dict[str, Any]:
    return {
        "retriever": _describe(registry, "retrievers", cell.method.retriever, f"{where}.retriever"),
        "filters": list(cell.method.filters),
        "core": room_hash(*RANKING_ROOMS),
    }


def _describe_selection(registry: Registry, cell: Cell, name: str) -> dict[str, Any] | None:
    """The metric called `name`, by which the best state is selected; None where its plug-in is broken."""
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
    """The dataset without the paths for which its digest stands, and without libraries, because its store is built only
    once."""
    described = _describe(registry, "datasets", dataset, "dataset")
    described["plugin"].pop("libraries")
    try:
        factory = registry.get("datasets", dataset.name).factory
    except BrokenPluginError:
        return described
    contents = registry.file_contents("datasets", dataset, "dataset")
    for name, value in flat_values(factory, dataset.options, "dataset").items():
        if isinstance(value, Path) and name not in contents:
            del described["options"][name]
    return described


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
