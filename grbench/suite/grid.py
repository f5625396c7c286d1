"""From the methods that a suite writes down to those that run: `defaults`, `extends` and `grid` worked out."""

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


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A method on top of another. A part that names another plug-in replaces the part below, options and all; one that
    names the same or none merges its options. Other mappings merge key by key, anything else is replaced."""
    merged = _merge_mappings({key: base[key] for key in base if key not in PARTS}, over)
    for part in PARTS:
        if part in base and part not in over:
            merged[part] = base[part]
        elif part in base:
            merged[part] = _merge_part(base[part], over[part])
    return merged


def inherit(
    methods: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Any], where: str
) -> dict[str, dict[str, Any]]:
    """Every method with what it extends and the defaults merged in; raises SuiteError for an unknown one or a cycle."""

    def chain(name: str) -> list[str]:
        names = [name]
        while (parent := methods[names[-1]].get("extends")) is not None:
            key = f"{where}: methods.{names[-1]}.extends"
            if not isinstance(parent, str) or parent not in methods:
                raise SuiteError(f"{key}: unknown method {parent!r}; {suggestion(str(parent), methods)}")
            if parent in names:
                raise SuiteError(f"{key}: goes round in a circle: {' -> '.join([*names, parent])}")
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
    """One method a point of its grid, named by what differs: `wider[width=64,blocks=2]`; itself where it has none."""
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
    cells: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        cell = copy.deepcopy(plain)
        # Names first: naming another plug-in drops the options of the one before.
        for key in sorted(point, key=lambda key: not key.endswith(".name")):
            set_value(cell, key, point[key], f"{where}.{key}")
        differs = ",".join(f"{labels[key]}={_value_text(value)}" for key, value in point.items())
        if f"{name}[{differs}]" in cells:
            raise SuiteError(f"{where}: two cells are called {name}[{differs}]; give each value once")
        cells[f"{name}[{differs}]"] = cell
    return cells


def as_mapping(part: Any) -> Any:
    """`hstu` is short for `{name: hstu}`."""
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
    """The shortest end of each dotted key that no other key ends in; `encoder.name` is called `encoder`."""
    called = {key: key.removesuffix(".name") for key in keys}
    labels = {}
    for key, full in called.items():
        parts = full.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        others = [f".{other}" for name, other in called.items() if name != key]
        labels[key] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)
    return labels


def _value_text(value: Any) -> str:
    """A value in a cell's name: a plug-in by its name, the rest as YAML would have it."""
    if isinstance(value, dict) and "name" in value:
        options = ",".join(f"{key}={_value_text(option)}" for key, option in value.items() if key != "name")
        return f"{value['name']}({options})" if options else str(value["name"])
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
