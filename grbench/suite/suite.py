"""A YAML suite, read, checked and expanded to cells (method x seed).

All errors that can be found without data are found here; their messages name the file and the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grbench.errors import PluginError, Problems, SuiteError, cut
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.registry.options import suggestion
from grbench.suite.cell import Cell, list_length
from grbench.suite.expansion import check_keys, expanded_methods
from grbench.suite.file import parse_yaml, read_suite_file, set_value
from grbench.suite.grid import as_mapping
from grbench.suite.installed import suite_file
from grbench.suite.method import (
    Method,
    bind_component,
    bind_method,
    bind_training,
)
from grbench.suite.published import Published, after_overrides, check_metrics_of, read_published
from grbench.suite.seeds import read_seeds
from grbench.suite.slices import bind_slices, read_slices
from grbench.suite.tuning import Space, Tuning, check_tuning, read_tuning, tuned_method

__all__ = ["Cell", "Method", "Suite", "list_length", "load_suite"]

SUITE_KEYS = (
    "suite",
    "title",
    "dataset",
    "protocol",
    "metrics",
    "slices",
    "keep_lists",
    "seeds",
    "defaults",
    "methods",
    "tuning",
    "baseline",
    "published",
)
REQUIRED_KEYS = {
    "suite": "my_suite",
    "dataset": "{name: interactions, path: my_log.csv}",
    "protocol": "leave_last_out",
    "metrics": "[hit_rate@10, ndcg@10]",
    "methods": "{floor: {encoder: most_popular}}",
}
"""With an example of each, for whoever left it out."""


@dataclass(frozen=True)
class Suite:
    """The content of a suite file. methods: keys of each method, after `defaults`, `extends` and grids are expanded;
    grids: the names of the expanded methods for each method's name in the file; ablations: names of grids none of whose
    rows is chosen, so that all are tested; published: what others report of the methods; other_metrics: whether the
    metrics are not the file's, which figures may then be of; slices: None = the default ones."""

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
    published: Published = field(default_factory=dict)
    other_metrics: bool = False
    slices: list[Any] | None = None
    tuning: Tuning | None = None
    ablations: frozenset[str] = frozenset()

    def cells(self, registry: Registry, only: Sequence[str] | None = None, seeds: int | None = None) -> list[Cell]:
        """All cells, ordered by seed first, so that a suite that is interrupted has compared all methods.

        only: names of methods, or of grids for all their methods; seeds: the number of seeds, from the first; None =
        all. Raises SuiteError or PluginError for errors that can be found without data. A plug-in that is installed but
        broken is not such an error: cells with it have an `error`.
        """
        names, chosen_seeds = self._names(only), self._seeds(seeds)
        problems, broken, methods, labels = Problems(), list[str](), list[tuple[Method, str | None]](), list[str]()
        protocol: Component | None = None
        with problems:
            dataset = bind_component(registry, "datasets", self.dataset, f"{self.path}: dataset", broken)
        with problems:
            protocol = bind_component(registry, "protocols", self.protocol, f"{self.path}: protocol", broken)
        with problems:
            metrics = self._metrics(registry, broken)
            labels = [] if broken else self._metric_names(registry, metrics)
            if labels and not self.other_metrics:
                check_metrics_of(self.published, labels, self.path)
        with problems:
            slices = bind_slices(registry, self.slices, self.path, broken)
        with problems:
            # Methods inherit these, so that each would repeat what is wrong with them.
            bind_training(self.defaults.get("training"), f"{self.path}: defaults.training")
            for name in names:
                with problems:
                    methods.append(self._method(registry, name, labels, broken))
        with problems:
            if protocol is not None and labels:
                able = [method for method, error in methods if error is None]
                self._spaces(registry, able, protocol, dict(zip(labels, metrics, strict=True)))
        problems.raise_found()
        assert protocol is not None
        return [
            Cell(self.name, dataset, protocol, metrics, method, seed, error, self.keep_lists, slices)
            for seed in chosen_seeds
            for method, error in methods
        ]

    def spaces(self, registry: Registry, cells: Sequence[Cell]) -> dict[str, Space]:
        """{tuned method: its space} of the methods of these cells that can run."""
        able = {cell.method.name: cell.method for cell in cells if cell.error is None}
        if not able or self.tuning is None:
            return {}
        labels = self._metric_names(registry, cells[0].metrics)
        metrics = dict(zip(labels, cells[0].metrics, strict=True))
        return self._spaces(registry, list(able.values()), cells[0].protocol, metrics)

    def tuned_cell(self, registry: Registry, cell: Cell, values: Mapping[str, Any]) -> Cell:
        """The cell with other values of its method's options, by their dotted keys."""
        name = cell.method.name
        where = f"{self.path}: tuning.space.{name}"
        return replace(cell, method=tuned_method(registry, name, self.methods[name], values, where))

    def grid_of(self, method: str) -> str | None:
        """The name of the grid that the method is a row of; None where it is none."""
        return next((grid for grid, rows in self.grids.items() if method in rows and method != grid), None)

    def grid_facts(self, method: str) -> dict[str, Any] | None:
        """What a record says of the grid that the method is a row of; None where it is none."""
        grid = self.grid_of(method)
        if grid is None:
            return None
        return {"name": grid, "points": len(self.grids[grid]), "ablation": grid in self.ablations}

    def _spaces(
        self, registry: Registry, methods: Sequence[Method], protocol: Component, metrics: Mapping[str, Component]
    ) -> dict[str, Space]:
        if self.tuning is None:
            return {}
        with_keys = {method.name: (method, self.methods[method.name]) for method in methods}
        cutoffs = {name: metric.options.get("k") for name, metric in metrics.items()}
        return check_tuning(self.tuning, registry, with_keys, protocol=protocol, cutoffs=cutoffs, path=self.path)

    def _method(self, registry: Registry, name: str, labels: list[str], broken: list[str]) -> tuple[Method, str | None]:
        """A method, and the message about its broken plug-ins and those of all methods (`broken`)."""
        broken_here: list[str] = []
        method = bind_method(registry, name, self.methods[name], f"{self.path}: methods.{name}", broken_here)
        for number, stage in enumerate(method.stages):
            selected = stage.training.get("select")
            if stage.training.get("validate_every") and labels and selected not in labels:
                raise SuiteError(
                    f"{self.path}: methods.{name}.{method.training_key(number)}.select: this suite has no metric "
                    f"{cut(str(selected))!r}; {suggestion(str(selected), labels)}"
                )
        return method, "; ".join(broken + broken_here) or None

    def _names(self, only: Sequence[str] | None) -> list[str]:
        if only is None:
            return list(self.methods)
        valid = {**{name: (name,) for name in self.methods}, **self.grids}
        for name in only:
            if name not in valid:
                raise SuiteError(f"{self.path}: there is no method {cut(name)!r}; {suggestion(name, valid)}")
        chosen = {method for name in only for method in valid[name]}
        return [name for name in self.methods if name in chosen]

    def _seeds(self, count: int | None) -> tuple[int, ...]:
        if count is not None and not 1 <= count <= len(self.seeds):
            raise SuiteError(
                f"{self.path}: seeds: the suite has {len(self.seeds)}, so {count} cannot be run; give more with "
                "--set seeds=[0,1,2]"
            )
        return self.seeds[:count]

    def _metrics(self, registry: Registry, broken: list[str]) -> tuple[Component, ...]:
        metrics, problems = list[Component](), Problems()
        for index, value in enumerate(self.metrics):
            where = f"{self.path}: metrics.{index}"
            with problems:
                metrics.append(bind_component(registry, "metrics", expand_cutoff(value, where), where, broken))
        problems.raise_found()
        return tuple(metrics)

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
                raise SuiteError(f"{where}: {built.name} is already given, as metrics.{names.index(built.name)}")
            names.append(built.name)
        return names


def load_suite(path: Path | str, overrides: Sequence[str] = ()) -> Suite:
    """Reads a suite. path: its file, or the name of an installed suite. overrides: `key=value`, with a dotted key and a
    YAML value.

    Raises SuiteError where there is none, for unknown keys and wrong types. Names and options of plug-ins are checked
    by `Suite.cells`.
    """
    problems = Problems()
    suite = _read(path, overrides, problems)
    problems.raise_found()
    return suite


def checked_cells(path: Path | str, overrides: Sequence[str], registry: Registry) -> list[Cell]:
    """All cells of a suite, read as `load_suite` does. The SuiteError that is raised lists what is wrong with the file
    as well as what is wrong with the plug-ins' names and options."""
    problems, cells = Problems(), list[Cell]()
    suite = _read(path, overrides, problems)
    with problems:
        cells = suite.cells(registry)
    problems.raise_found()
    return cells


def _read(path: Path | str, overrides: Sequence[str], problems: Problems) -> Suite:
    """The suite without what is wrong, which is added to `problems`. Raises SuiteError for a file that is no suite."""
    path = suite_file(path)
    content = read_suite_file(path)
    of_file = deepcopy(content) if overrides else content
    for override in overrides:
        _override(content, override)
    where = str(path)
    check_keys(content, SUITE_KEYS, where, problems)
    missing = [
        f"{where}: {key}: is missing, such as `{key}: {example}`"
        for key, example in REQUIRED_KEYS.items()
        if content.get(key) is None
    ]
    if missing:
        with problems:
            raise SuiteError("\n".join(missing))
        problems.raise_found()
    name, seeds = content["suite"], read_seeds(None, where)
    with problems:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name):
            raise SuiteError(
                f"{where}: suite: should be a name of at most 100 letters, digits, _, - and . (a folder's)"
            )
    title, metrics = content.get("title"), content["metrics"]
    with problems:
        if title is not None and not isinstance(title, str):
            raise SuiteError(f"{where}: title: should be text")
    with problems:
        if not isinstance(metrics, list) or not metrics:
            metrics = []
            raise SuiteError(f"{where}: metrics: should be a list such as [hit_rate@10, ndcg@10]")
    keep_lists = content.get("keep_lists")
    with problems:
        if keep_lists is not None and (type(keep_lists) is not int or keep_lists < 1):  # true is an int to Python
            raise SuiteError(
                f"{where}: keep_lists: should be a whole number from 1, such as 100, got {cut(json.dumps(keep_lists))}"
            )
    with problems:
        seeds = read_seeds(content.get("seeds"), where)
    slices: list[Any] | None = None
    with problems:
        slices = read_slices(content.get("slices"), where)
    grids, ablations = dict[str, dict[str, dict[str, Any]]](), list[str]()
    with problems:
        grids, ablations = expanded_methods(content, len(seeds), where, problems)
    methods = {method: keys for expanded in grids.values() for method, keys in expanded.items()}
    complete = isinstance(content["methods"], dict) and len(grids) == len(content["methods"])
    tuning = _read_tuning(content, grids, where, problems)
    baseline = content.get("baseline")
    with problems:
        known = isinstance(baseline, str) and baseline in methods
        if baseline is not None and not known and complete:
            given = cut(str(baseline))
            raise SuiteError(f"{where}: baseline: there is no method {given!r}; {suggestion(given, methods)}")
    published = read_published(content.get("published"), methods if complete else None, where, problems)
    if published and overrides:
        before = {**of_file, "methods": _methods_of_file(of_file, where)}
        published = after_overrides(published, before, {**content, "methods": methods}, overrides)
    defaults = content.get("defaults")
    return Suite(
        path=where,
        name=name,
        title=title,
        dataset=content["dataset"],
        protocol=content["protocol"],
        metrics=metrics,
        defaults=defaults if isinstance(defaults, dict) else {},
        seeds=seeds,
        methods=methods,
        grids={method: tuple(expanded) for method, expanded in grids.items()},
        baseline=baseline,
        keep_lists=keep_lists,
        published=published,
        other_metrics=content["metrics"] != of_file.get("metrics"),
        slices=slices,
        tuning=tuning,
        ablations=frozenset(ablations),
    )


def _read_tuning(
    content: Mapping[str, Any], grids: Mapping[str, Mapping[str, Any]], where: str, problems: Problems
) -> Tuning | None:
    with_rows = {name for name, expanded in grids.items() if name not in expanded}
    return read_tuning(content.get("tuning"), set(grids) - with_rows, with_rows, f"{where}: tuning", problems)


def _methods_of_file(content: dict[str, Any], where: str) -> dict[str, Any]:
    """The methods without overrides, as far as the file has them and they are right."""
    grids: dict[str, dict[str, dict[str, Any]]] = {}
    with (ignored := Problems()):
        grids, _ = expanded_methods({"methods": None, **content}, 1, where, ignored)
    return {method: keys for expanded in grids.values() for method, keys in expanded.items()}


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    where = f"--set {cut(override, 200)}"
    if not equals or not key:
        raise SuiteError(f"{where}: should be key=value, such as dataset.path=DIR")
    top, _, rest = key.partition(".")
    if top not in SUITE_KEYS:
        raise SuiteError(f"{where}: unknown key {cut(top)!r}; {suggestion(top, SUITE_KEYS)}")
    methods = content.get("methods")
    method = rest.partition(".")[0]
    if top == "methods" and rest and isinstance(methods, dict) and method not in methods:
        raise SuiteError(f"{where}: unknown method {cut(method)!r}; {suggestion(method, methods)}")
    set_value(content, key, parse_yaml(text, where), where)


def expand_cutoff(value: Any, where: str) -> Any:
    """Expands a metric's short form: `ndcg@10` becomes `{name: ndcg, k: 10}`. Other values are returned unchanged."""
    mapping = as_mapping(value)
    named = mapping.get("name") if isinstance(mapping, dict) else None
    if not isinstance(named, str) or "@" not in named:
        return value
    name, _, cutoff = named.partition("@")
    if not re.fullmatch(r"[1-9][0-9]{0,17}", cutoff) or "k" in mapping:
        raise SuiteError(f"{where}: {cut(named)}: should be a metric's name and one cutoff k, such as ndcg@10")
    return {**mapping, "name": name, "k": int(cutoff)}
