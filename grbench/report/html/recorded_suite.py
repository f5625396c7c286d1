"""A suite put together from records: every option of every method, as it was bound when the cells ran."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grbench.output import printable
from grbench.report.html.recorded_grid import recorded_grid
from grbench.report.rows import Row, flattened, rows_of
from grbench.results.record import Record

HASHED = "sha256:"
"""Begins an option that names a file: identities have its content."""


@dataclass(frozen=True)
class RecordedSuite:
    """text: YAML; seeds: {seeds: the methods that ran with them, rows of grids by the names of the rows}."""

    text: str
    seeds: Mapping[tuple[int, ...], tuple[str, ...]]


def recorded_suite(name: str, records: Sequence[Record]) -> RecordedSuite | None:
    """The suite of records that were run here; None where there are none whose identities have their options, as those
    of an earlier grbench. Methods with the values that tuning chose; grids as grids, where all of their rows have
    records, else their rows as methods of their own."""
    import yaml

    rows = {row.name: row for row in rows_of(records) if _has_options(row.records[0])}
    if not rows:
        return None
    used = [record for row in rows.values() for record in row.records]
    found = {method: _method(row.records[0]) for method, row in rows.items()}
    grids = _grids(rows, found)
    methods: dict[str, dict[str, Any]] = {}
    seeds: dict[tuple[int, ...], list[str]] = {}
    renamed, apart = list[str](), dict[str, None]()
    for method, row in rows.items():
        grid, key = row.records[0].grid or {}, method
        if keys := grids.get(grid.get("name", "")):
            methods[grid["name"]] = keys
        else:
            key = _valid_name(method, {**methods, **grids})
            methods[key] = found[method]
            renamed += [f"{key} is {method}"] * (key != method)
            apart |= {grid["name"]: None} if grid and not grid["ablation"] else {}
        seeds.setdefault(tuple(record.seed for record in row.records), []).append(key)
    first, known = used[0], {key for keys in seeds.values() for key in keys}
    content: dict[str, Any] = {"suite": name, **({"title": first.title} if first.title else {})}
    content |= {
        "dataset": {"name": first.dataset.get("name"), **(first.dataset.get("options") or {})},
        "protocol": dict(first.protocol),
        "metrics": [_metric(metric) for metric in first.identity["metrics"]],
        "seeds": sorted({record.seed for record in used}),
        **({"baseline": first.baseline} if first.baseline in known else {}),
        "methods": methods,
    }
    comments = ["Put together from the records: all options are written out, defaults too."]
    hashed = [value for value in flattened(content).values() if isinstance(value, str) and value.startswith(HASHED)]
    if hashed:
        comments.append(f"Options that begin with {HASHED} name a file by its content: put such a file's path there.")
    comments += [f"The rows of the grid {grid} are methods here: all of them show test scores." for grid in apart]
    comments += renamed
    head = "".join(f"# {printable(line)}\n" for line in comments)
    text = head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return RecordedSuite(text, {ran: tuple(names) for ran, names in seeds.items()})


def _has_options(record: Record) -> bool:
    """Whether it was run here, and its identity has the method's options."""
    return not record.external and not record.older_identity and "encoder" in record.identity.get("training", {})


def _grids(rows: Mapping[str, Row], methods: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{name: keys of the method, with its grid} of the grids that all of their rows have records of."""
    members: dict[str, list[str]] = {}
    for name, row in rows.items():
        if grid := row.records[0].grid:
            members.setdefault(grid["name"], []).append(name)
    grids = {}
    for grid_name, names in members.items():
        grid = rows[names[0]].records[0].grid or {}
        own = {name: methods[name] for name in names}
        keys = recorded_grid(grid_name, own, points=grid["points"], ablation=grid["ablation"])
        if keys is not None and grid_name not in rows:
            grids[grid_name] = keys
    return grids


def _method(record: Record) -> dict[str, Any]:
    training, ranking = record.identity["training"], record.identity["ranking"]
    keys: dict[str, Any] = {}
    if training.get("tokenizer"):
        keys["tokenizer"] = _component(training["tokenizer"])
    keys["encoder"] = _component(training["encoder"])
    stages = [_stage(stage) for stage in training.get("stages") or ()]
    if len(stages) == 1 and not stages[0].get("name"):
        keys |= stages[0]
    elif stages:
        keys["stages"] = stages
    keys["retriever"] = _component(ranking["retriever"])
    if ranking.get("filters"):
        keys["filters"] = list(ranking["filters"])
    return keys


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    losses = [
        _component(loss) | ({} if loss.get("weight", 1.0) == 1.0 else {"weight": loss["weight"]})
        for loss in stage.get("losses") or ()
    ]
    keys: dict[str, Any] = {"name": stage["name"]} if stage.get("name") else {}
    if stage.get("targets"):
        keys["targets"] = list(stage["targets"])
    if losses:
        keys["loss"] = losses[0] if len(losses) == 1 else losses
    for part in ("trainer", "optimizer"):
        if stage.get(part):
            keys[part] = _component(stage[part])
    if stage.get("training"):
        keys["training"] = dict(stage["training"])
    return keys


def _component(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": facts["name"], **(facts.get("options") or {})}


def _metric(facts: Mapping[str, Any]) -> Any:
    options = facts.get("options") or {}
    if set(options) == {"k"} and type(options["k"]) is int:
        return f"{facts['name']}@{options['k']}"
    return {"name": facts["name"], **options} if options else facts["name"]


def _valid_name(name: str, taken: Mapping[str, Any]) -> str:
    """The name as a method of a suite may have it, which those of grids' rows are not."""
    valid = re.sub(r"[][.,=/\s]+", "_", name).strip("_") or "method"
    place, free = 2, valid
    while free in taken:
        free, place = f"{valid}_{place}", place + 1
    return free
