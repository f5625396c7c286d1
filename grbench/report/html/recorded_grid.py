"""The grid of a suite, found again from the methods that it was expanded to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from grbench.errors import SuiteError
from grbench.report.rows import flattened
from grbench.suite.grid import expand


def recorded_grid(
    name: str, methods: Mapping[str, Mapping[str, Any]], *, points: int, ablation: bool
) -> dict[str, Any] | None:
    """The keys of the method `name` with a `grid` that expands to just these methods; None where there is no such one,
    as where not all rows have records. points: how many rows the grid had; methods: {row's name: its keys}, in the
    order of the rows."""
    rows, first = list(methods.values()), next(iter(methods.values()))
    if len(methods) != points or not re.fullmatch(r"[^][.,=/\s]+", name):
        return None
    flat = [flattened(dict(row)) for row in rows]
    keys = [key for key in flat[0] if any(other.get(key) != flat[0][key] for other in flat)]
    label = next(iter(methods)).removeprefix(name)
    keys.sort(key=lambda key: label.find(f"{key.removesuffix('.name').rpartition('.')[2]}="))
    grid = {key: _distinct([row.get(key) for row in flat]) for key in keys}
    found = {**first, "grid": grid, **({"ablation": True} if ablation else {})}
    try:
        expanded = expand(name, found, name) if grid else {}
    except SuiteError:
        return None
    return found if expanded == dict(methods) else None


def _distinct(values: Sequence[Any]) -> list[Any]:
    """In the order in which they come first."""
    return [value for place, value in enumerate(values) if value not in values[:place]]
