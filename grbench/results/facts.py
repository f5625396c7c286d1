"""What a record says of its dataset and its metrics, so that tables know which records can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from grbench.errors import PluginError
from grbench.interfaces import Metric
from grbench.registry.component import Component
from grbench.registry.discovery import Registry


def dataset_facts(dataset: Component, digest: str) -> dict[str, Any]:
    """{name, digest, options}. digest: of the source's content; empty where it is not known."""
    return {"name": dataset.name, "digest": dataset_digest(digest), "options": dataset.options}


def dataset_digest(digest: str) -> str:
    """The source's digest as records give it; empty where it is not known."""
    return short_hash({"digest": digest}) if digest else ""


def protocol_facts(protocol: Component) -> dict[str, Any]:
    """{name, and all its options}."""
    return {"name": protocol.name, **protocol.options}


def metric_facts(
    registry: Registry, metrics: Sequence[Component], identities: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """{metric's name: {higher_is_better, label, per_user, version}}, in order; per_user where it is false. identities:
    what the metrics' parts of an identity are, in the same order.

    Raises BrokenPluginError where a metric cannot be imported, PluginError where it lacks a name or a direction.
    """
    facts: dict[str, dict[str, Any]] = {}
    for component, identity in zip(metrics, identities, strict=True):
        metric = registry.build("metrics", component)
        for attribute in ("name", "higher_is_better"):
            if not hasattr(metric, attribute):
                raise PluginError(f"metric {component.name!r} has no attribute {attribute}")
        facts[metric.name] = {"higher_is_better": bool(metric.higher_is_better)}
        if label := getattr(metric, "label", Metric.label):
            facts[metric.name]["label"] = str(label)
        if not getattr(metric, "per_user", Metric.per_user):
            facts[metric.name]["per_user"] = False
        facts[metric.name]["version"] = short_hash(identity)
    return facts


def short_hash(facts: Any) -> str:
    """12 hex digits that name JSON-ready facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
