"""Expanding a suite's methods: `defaults` and `extends` are merged, and a `grid` becomes one method per combination."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from grbench.errors import SuiteError
from grbench.hookspecs import PARTS
from grbench.registry.options import suggestion
from grbench.suite.file import set_value
from grbench.training.options import VALIDATION_ONLY


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The method `base`, overridden by `over`.

    A part with another plug-in's name replaces that of `base` with all its options; with the same name or none, its
    options are merged. Other mappings are merged recursively, other values replaced. A `training` with `validate_every:
    null` (or 0) takes over none of the options that only validation reads.
    """
    merged = _merge_mappings({key: base[key] for key in base if key not in PARTS}, over)
    training = over.get("training")
    if isinstance(training, dict) and "validate_every" in training and not training["validate_every"]:
        inherited = [key for key in VALIDATION_ONLY if key not in training]
        merged["training"] = {key: value for key, value in merged["training"].items() if key not in inherited}
    for part in PARTS:
        if part in base and part not in over:
            merged[part] = base[part]
        elif part in base:
            merged[part] = _merge_part(base[part], over[part])
    return merged


def inherit(
    methods: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Any], where: str
) -> dict[str, dict[str, Any]]:
    """All methods, each merged with the method that it extends and the defaults. Raises SuiteError where a method
    extends an unknown one, or itself through others."""

    def chain(name: str) -> list[str]:
        names = [name]
        while (parent := methods[names[-1]].get("extends")) is not None:
            key = f"{where}: methods.{names[-1]}.extends"
            if not isinstance(parent, str) or parent not in methods:
                raise SuiteError(f"{key}: unknown method {parent!r}; {suggestion(str(parent), methods)}")
            if parent in names:
                raise SuiteError(f"{key}: is a cycle: {' -> '.join([*names, parent])}")
            names.append(parent)
        return names

    complete = {}
    for name in methods:
        method = dict(defaults)
        for ancestor in reversed(chain(name)):
            method = merge(method, methods[ancestor])
        method.pop("extends", None)
        complete[name] = method
    return complete


def expand(name: str, method: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """One method per combination of the grid's values, named by them: `wider[width=64,blocks=2]`; the method itself
    where it has no grid. Raises SuiteError where the grid is not a mapping of lists, or two names are equal."""
    plain = {key: value for key, value in method.items() if key != "grid"}
    grid = method.get("grid")
    if grid is None:
        return {name: plain}
    where = f"{where}: methods.{name}.grid"
    if not isinstance(grid, dict) or not grid:
        raise SuiteError(f"{where}: should map keys such as encoder.width to lists of values")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise SuiteError(f"{where}.{key}: should be a list of values, got {json.dumps(values)}")
    labels = _labels(grid)
    expanded: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        variant = copy.deepcopy(plain)
        # Names first, because setting another plug-in's name removes all options.
        for key in sorted(point, key=lambda key: not key.endswith(".name")):
            set_value(variant, key, point[key], f"{where}.{key}")
        label = ",".join(f"{labels[key]}={_value_text(value)}" for key, value in point.items())
        if f"{name}[{label}]" in expanded:
            raise SuiteError(f"{where}: two methods would be called {name}[{label}]; give each value once")
        expanded[f"{name}[{label}]"] = variant
    return expanded


def as_mapping(part: Any) -> Any:
    """Expands a component's short form: `hstu` becomes `{name: hstu}`. Other values are returned unchanged."""
    return {"name": part} if isinstance(part, str) else part


def _merge_part(base: Any, over: Any) -> Any:
    base, over = as_mapping(base), as_mapping(over)
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    same = "name" not in over or over["name"] == base.get("name", over["name"])
    return _merge_mappings(base, over) if same else over


def _merge_mappings(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge_mappings(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _labels(keys: Iterable[str]) -> dict[str, str]:
    """{key: its shortest suffix that is not a suffix of another key}; `encoder.name` is shortened to `encoder`."""
    names = {key: key.removesuffix(".name") for key in keys}
    labels = {}
    for key, full in names.items():
        parts = full.split(".")
        suffixes = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        others = [f".{other}" for name, other in names.items() if name != key]
        labels[key] = next(
            (suffix for suffix in suffixes if not any(other.endswith(f".{suffix}") for other in others)), key
        )
    return labels


def _value_text(value: Any) -> str:
    """A value in a method's name: a plug-in by its name, other values as YAML."""
    if isinstance(value, dict) and "name" in value:
        options = ",".join(f"{key}={_value_text(option)}" for key, option in value.items() if key != "name")
        return f"{value['name']}({options})" if options else str(value["name"])
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
