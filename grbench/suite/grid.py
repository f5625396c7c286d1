"""Expanding a suite's methods: `defaults` and `extends` are merged, and a `grid` becomes one method per combination."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Container, Iterable, Mapping
from typing import Any

from grbench.errors import Problems, SuiteError, cut
from grbench.hookspecs import PARTS
from grbench.registry.options import suggestion
from grbench.suite.file import set_value
from grbench.training.options import VALIDATION_ONLY

MAX_LABEL = 1_000
"""Characters of a combination in its method's name."""


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
    methods: Mapping[str, Any], defaults: Mapping[str, Any], where: str, problems: Problems
) -> dict[str, dict[str, Any]]:
    """All methods, each merged with the method that it extends and the defaults. Where one extends an unknown one, or
    itself through others, that is added to `problems`; such methods are left out, as are those that are no mappings,
    with all that extend them."""
    complete: dict[str, dict[str, Any] | None] = {  # None: left out
        name: None for name, keys in methods.items() if not isinstance(keys, dict)
    }
    for name in methods:
        chain: dict[str, None] = {}
        method = None
        with problems:
            last = _follow(name, methods, complete, where, chain)
            method = dict(defaults) if last is None else complete[last]
        for descendant in reversed(chain):
            if method is not None:
                method = merge(method, methods[descendant])
                method.pop("extends", None)
            complete[descendant] = method
    return {name: keys for name in methods if (keys := complete[name]) is not None}


def _follow(
    name: str, methods: Mapping[str, Any], known: Container[str], where: str, chain: dict[str, None]
) -> str | None:
    """Adds to `chain` the method and its ancestors up to the first known one, which is returned; None where there is
    none. Raises SuiteError where one extends an unknown method, or itself through others."""
    ancestor: Any = name
    while ancestor is not None and ancestor not in known:
        chain[ancestor] = None
        key, ancestor = f"{where}: methods.{ancestor}.extends", methods[ancestor].get("extends")
        if ancestor is not None and not (isinstance(ancestor, str) and ancestor in methods):
            given = cut(str(ancestor))
            raise SuiteError(f"{key}: unknown method {given!r}; {suggestion(given, methods)}")
        if ancestor in chain:
            raise SuiteError(f"{key}: is a cycle: {cut(' -> '.join([*chain, ancestor]), 300)}")
    return ancestor if ancestor is None else str(ancestor)


def combinations(name: str, method: Mapping[str, Any], where: str) -> int:
    """The number of methods that `expand` makes of this one. Raises SuiteError where the grid is not a mapping of
    lists."""
    grid = method.get("grid")
    if grid is None:
        return 1
    where = f"{where}: methods.{name}.grid"
    if not isinstance(grid, dict) or not grid:
        raise SuiteError(f"{where}: should map keys such as encoder.width to lists of values")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise SuiteError(f"{where}.{key}: should be a list of values, got {cut(json.dumps(values))}")
    return math.prod(map(len, grid.values()))


def expand(name: str, method: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """One method per combination of the grid's values, named by them: `wider[width=64,blocks=2]`; the method itself
    where it has no grid. The grid is one that `combinations` counts. Raises SuiteError where two names are equal, or
    one is longer than MAX_LABEL."""
    plain = {key: value for key, value in method.items() if key not in ("grid", "ablation")}
    grid = method.get("grid")
    if grid is None:
        return {name: plain}
    where = f"{where}: methods.{name}.grid"
    labels = _labels(grid)
    expanded: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        variant = with_values(plain, point, where)
        label = ",".join(f"{labels[key]}={_value_text(value)}" for key, value in point.items())
        if len(label) > MAX_LABEL:
            raise SuiteError(
                f"{where}: a method would be called {name}[{cut(label)}]; its values should be at most {MAX_LABEL:,} "
                "characters together"
            )
        if f"{name}[{label}]" in expanded:
            raise SuiteError(f"{where}: two methods would be called {name}[{label}]; give each value once")
        expanded[f"{name}[{label}]"] = variant
    return expanded


def with_values(method: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The method with other values of these dotted keys. Raises SuiteError as `set_value` does."""
    variant = dict(method)
    # Names first, because setting another plug-in's name removes all options.
    for key in sorted(values, key=lambda key: not key.endswith(".name")):
        set_value(variant, key, values[key], f"{where}.{key}")
    return variant


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
