"""A cell of a suite: one method with one seed, and all that it is run with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pydantic

from grbench.registry.component import Component
from grbench.suite.method import Method
from grbench.types import DEFAULT_LIST_LENGTH


@dataclass(frozen=True)
class Cell:
    """One method with one seed.

    error: message about its broken plug-ins, with which the cell cannot run, or None; keep_lists: length of the longer
    lists that are recorded for metrics added later, None = only the scored lists are recorded; slices: that divide the
    users into groups, which no score depends on.
    """

    suite: str
    dataset: Component
    protocol: Component
    metrics: tuple[Component, ...]
    method: Method
    seed: int
    error: str | None = None
    keep_lists: int | None = None
    slices: tuple[Component, ...] = ()

    @property
    def list_length(self) -> int:
        """Length of the lists that are scored: the largest k of the metrics."""
        return list_length(self.metrics)

    def plugins(self) -> set[tuple[str, str]]:
        """(kind, name) of all plug-ins of the cell."""
        return {
            ("datasets", self.dataset.name),
            ("protocols", self.protocol.name),
            *(("metrics", metric.name) for metric in self.metrics),
            *(("slices", part.name) for part in self.slices),
            *self.method.plugins(),
        }

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping, from which `from_json` makes an equal cell."""
        content: dict[str, Any] = _cell_adapter().dump_python(self, mode="json")
        return content

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Cell:
        """The cell whose `to_json` returned `content`."""
        return _cell_adapter().validate_python(content)


def list_length(metrics: Iterable[Component]) -> int:
    """The largest `k` of the metrics; DEFAULT_LIST_LENGTH where none has one."""
    cutoffs = [int(metric.options["k"]) for metric in metrics if metric.options.get("k")]
    return max(cutoffs, default=DEFAULT_LIST_LENGTH)


@lru_cache(maxsize=1)
def _cell_adapter() -> pydantic.TypeAdapter[Cell]:
    return pydantic.TypeAdapter(Cell)
