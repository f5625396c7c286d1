"""What is compared: a YAML suite, read whole, checked whole, and turned into cells (method x seed).

Every mistake that can be found without data is found here, as one message that names the file and the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pydantic

from grbench.errors import PluginError, SuiteError
from grbench.hookspecs import DEFAULT_PARTS
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.registry.options import suggestion
from grbench.suite.file import parse_yaml, read_suite_file, set_value
from grbench.suite.grid import as_mapping, expand, inherit, merge
from grbench.suite.method import (
    METHOD_KEYS,
    Method,
    bind_component,
    bind_method,
    bind_training,
)

__all__ = ["Cell", "Method", "Suite", "load_suite"]

SUITE_KEYS = (
    "suite",
    "title",
    "dataset",
    "protocol",
    "metrics",
    "keep_lists",
    "seeds",
    "defaults",
    "methods",
    "baseline",
)
REQUIRED_KEYS = ("suite", "dataset", "protocol", "metrics", "methods")


@dataclass(frozen=True)
class Cell:
    """One method with one seed. `error` says which plug-in it names is broken; such a cell cannot run.

    keep_lists: length of the lists that are kept for later metrics, beside those that are scored; None = no others.
    """

    suite: str
    dataset: Component
    protocol: Component
    metrics: tuple[Component, ...]
    method: Method
    seed: int
    error: str | None = None
    keep_lists: int | None = None

    @property
    def list_length(self) -> int:
        """How long the lists must be for every metric."""
        return list_length(self.metrics)

    def plugins(self) -> set[tuple[str, str]]:
        """(kind, name) of every plug-in that it names."""
        return {
            ("datasets", self.dataset.name),
            ("protocols", self.protocol.name),
            *(("metrics", metric.name) for metric in self.metrics),
            *self.method.plugins(),
        }

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping that `from_json` turns back into an equal cell."""
        content: dict[str, Any] = _cell_adapter().dump_python(self, mode="json")
        return content

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Cell:
        """The cell that `to_json` was called on."""
        return _cell_adapter().validate_python(content)


def list_length(metrics: Iterable[Component]) -> int:
    """How long lists must be for these metrics: the largest `k` among them, 10 where none has one."""
    return max((int(metric.options["k"]) for metric in metrics if metric.options.get("k")), default=10)


@dataclass(frozen=True)
class Suite:
    """A suite file. `methods` maps each method's name to its keys, with grids, `extends` and `defaults` worked out;
    `grids` maps a name that the file wrote down to the methods that it became."""

    path: str
    name: str
    title: str | None
    dataset: Any
    protocol: Any
    metrics: list[Any]
    defaults: dict[str, Any]
    seeds: tuple[int, ...]
    methods: dict[str, dict[str, Any]]
    grids: dict[str, tuple[str, ...]]
    baseline: str | None
    keep_lists: int | None = None

    def cells(self, registry: Registry, only: Sequence[str] | None = None, seeds: int | None = None) -> list[Cell]:
        """Every cell, seed by seed, so that a suite cut short has compared all methods.

        only: names of methods, or of grids for all that they became; seeds: how many of the suite's, from the first.
        Raises SuiteError or PluginError for whatever can be known to be wrong before any data is read. A plug-in that
        is installed but broken is no such mistake: the cells that name it carry an `error`.
        """
        names, chosen_seeds = self._names(only), self._seeds(seeds)
        bind_training(self.defaults.get("training"), f"{self.path}: defaults.training")
        broken: list[str] = []
        dataset = bind_component(registry, "datasets", self.dataset, f"{self.path}: dataset", broken)
        protocol = bind_component(registry, "protocols", self.protocol, f"{self.path}: protocol", broken)
        metrics = self._metrics(registry, broken)
        labels = () if broken else self._metric_names(registry, metrics)
        methods = []
        for name in names:
            broken_here: list[str] = []
            method = bind_method(registry, name, self.methods[name], f"{self.path}: methods.{name}", broken_here)
            for place, stage in enumerate(method.stages):
                selected = stage.training.get("select")
                if stage.training.get("validate_every") and labels and selected not in labels:
                    raise SuiteError(
                        f"{self.path}: methods.{name}.{method.training_key(place)}.select: no metric of this suite is "
                        f"called {selected!r}; {suggestion(str(selected), labels)}"
                    )
            methods.append((method, "; ".join(broken + broken_here) or None))
        return [
            Cell(self.name, dataset, protocol, metrics, method, seed, error, self.keep_lists)
            for seed in chosen_seeds
            for method, error in methods
        ]

    def _names(self, only: Sequence[str] | None) -> list[str]:
        if only is None:
            return list(self.methods)
        valid = {**{name: (name,) for name in self.methods}, **self.grids}
        for name in only:
            if name not in valid:
                raise SuiteError(f"{self.path}: there is no method {name!r}; {suggestion(name, valid)}")
        wanted = {method for name in only for method in valid[name]}
        return [name for name in self.methods if name in wanted]

    def _seeds(self, count: int | None) -> tuple[int, ...]:
        if count is not None and not 1 <= count <= len(self.seeds):
            raise SuiteError(
                f"{self.path}: seeds: the suite names {len(self.seeds)}, so {count} of them cannot be run; "
                "name others with --set seeds=[0,1,2]"
            )
        return self.seeds[:count]

    def _metrics(self, registry: Registry, broken: list[str]) -> tuple[Component, ...]:
        where = f"{self.path}: metrics"
        return tuple(
            bind_component(registry, "metrics", _expand_cutoff(value, f"{where}.{index}"), f"{where}.{index}", broken)
            for index, value in enumerate(self.metrics)
        )

    def _metric_names(self, registry: Registry, metrics: tuple[Component, ...]) -> list[str]:
        names: list[str] = []
        for index, metric in enumerate(metrics):
            where = f"{self.path}: metrics.{index}"
            try:
                built = registry.build("metrics", metric, where=where)
            except ValueError as error:
                raise SuiteError(f"{where}: {error}") from error
            for attribute in ("name", "higher_is_better"):
                if not hasattr(built, attribute):
                    raise PluginError(f"{where}: metric {metric.name!r} has no attribute {attribute}")
            if built.name in names:
                raise SuiteError(f"{where}: {built.name} is there already, as metrics.{names.index(built.name)}")
            names.append(built.name)
        return names


def load_suite(path: Path | str, overrides: Sequence[str] = ()) -> Suite:
    """Reads a suite file; overrides are `key=value` with a dotted key and a YAML value.

    Raises SuiteError for what is wrong with the file's shape; names and options of plug-ins are checked by
    `Suite.cells`, which knows the plug-ins.
    """
    path = Path(path)
    content = read_suite_file(path)
    for override in overrides:
        _override(content, override)
    where = str(path)
    _check_keys(content, SUITE_KEYS, where)
    for key in REQUIRED_KEYS:
        if content.get(key) is None:
            raise SuiteError(f"{where}: {key}: is missing")
    name = content["suite"]
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise SuiteError(f"{where}: suite: should be a name of letters, digits, _, - and . (it names a folder)")
    title, metrics = content.get("title"), content["metrics"]
    if title is not None and not isinstance(title, str):
        raise SuiteError(f"{where}: title: should be text")
    if not isinstance(metrics, list) or not metrics:
        raise SuiteError(f"{where}: metrics: should be a list such as [hit_rate@10, ndcg@10]")
    keep_lists = content.get("keep_lists")
    if keep_lists is not None and (type(keep_lists) is not int or keep_lists < 1):  # true is an int to Python
        raise SuiteError(f"{where}: keep_lists: should be a whole number from 1, such as 100, got {keep_lists!r}")
    written = _methods(content, where)
    grids = {method: expand(method, keys, where) for method, keys in written.items()}
    methods = {cell: keys for cells in grids.values() for cell, keys in cells.items()}
    for cell, keys in methods.items():
        _check_keys(keys, METHOD_KEYS, f"{where}: methods.{cell}")
    baseline = content.get("baseline")
    if baseline is not None and baseline not in methods:
        raise SuiteError(f"{where}: baseline: there is no method {baseline!r}; {suggestion(str(baseline), methods)}")
    return Suite(
        path=where,
        name=name,
        title=title,
        dataset=content["dataset"],
        protocol=content["protocol"],
        metrics=metrics,
        defaults=content.get("defaults") or {},
        seeds=_read_seeds(content.get("seeds", [0]), where),
        methods=methods,
        grids={method: tuple(cells) for method, cells in grids.items()},
        baseline=baseline,
        keep_lists=keep_lists,
    )


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    where = f"--set {override}"
    if not equals or not key:
        raise SuiteError(f"{where}: should be key=value, such as dataset.path=DIR")
    top, _, rest = key.partition(".")
    if top not in SUITE_KEYS:
        raise SuiteError(f"{where}: unknown key {top!r}; {suggestion(top, SUITE_KEYS)}")
    methods = content.get("methods")
    method = rest.partition(".")[0]
    if top == "methods" and rest and isinstance(methods, dict) and method not in methods:
        raise SuiteError(f"{where}: unknown method {method!r}; {suggestion(method, methods)}")
    set_value(content, key, parse_yaml(text, where), where)


def _methods(content: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    methods, defaults = content["methods"], content.get("defaults") or {}
    if not isinstance(methods, dict) or not methods:
        raise SuiteError(f"{where}: methods: should be a mapping of names to methods")
    for name, keys in methods.items():
        if not name or re.search(r"[][.,=/\s]", name):
            raise SuiteError(f"{where}: methods: {name!r} is no name; leave out spaces and . , = / [ ]")
        if not isinstance(keys, dict):
            raise SuiteError(f"{where}: methods.{name}: should be a mapping of keys such as encoder and loss")
        _check_keys(keys, METHOD_KEYS, f"{where}: methods.{name}")
    if not isinstance(defaults, dict):
        raise SuiteError(f"{where}: defaults: should be a mapping of keys such as training")
    shared = [key for key in METHOD_KEYS if key not in ("extends", "grid", "stages")]
    _check_keys(defaults, shared, f"{where}: defaults")
    return inherit(methods, merge(DEFAULT_PARTS, defaults), where)


def _expand_cutoff(value: Any, where: str) -> Any:
    """`ndcg@10` is short for `{name: ndcg, k: 10}`."""
    mapping = as_mapping(value)
    if not isinstance(mapping, dict) or "@" not in str(mapping.get("name")):
        return value
    name, _, cutoff = str(mapping["name"]).partition("@")
    if not re.fullmatch(r"[1-9][0-9]*", cutoff) or "k" in mapping:
        raise SuiteError(f"{where}: {mapping['name']}: should be a metric and one length of list, such as ndcg@10")
    return {**mapping, "name": name, "k": int(cutoff)}


def _read_seeds(seeds: Any, where: str) -> tuple[int, ...]:
    # `type`, because true is an int to Python.
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise SuiteError(f"{where}: seeds: should be a list of whole numbers from 0, such as [0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise SuiteError(f"{where}: seeds: names a seed twice")
    return tuple(seeds)


def _check_keys(mapping: Mapping[str, Any], valid: Sequence[str], where: str) -> None:
    for key in mapping:
        if key not in valid:
            raise SuiteError(f"{where}: unknown key {key!r}; {suggestion(key, valid)}")


@lru_cache(maxsize=1)
def _cell_adapter() -> pydantic.TypeAdapter[Cell]:
    return pydantic.TypeAdapter(Cell)
