"""The slices of a suite, by which tables and comparisons divide the evaluated users into groups."""

from __future__ import annotations

import json
import re
from typing import Any

from grbench.errors import PluginError, Problems, SuiteError, cut
from grbench.hookspecs import KINDS
from grbench.registry.component import Component
from grbench.registry.discovery import BrokenPluginError, Registry
from grbench.suite.method import bind_component

NAME = r"\w+(@[\w.,-]+)?"


def read_slices(slices: Any, where: str) -> list[Any] | None:
    """The value of a suite's key `slices`. Raises SuiteError, prefixed by `where`, where it is no list."""
    if slices is None or isinstance(slices, list):
        return slices
    raise SuiteError(
        f"{where}: slices: should be a list such as [history_length, popularity], or [] for none, got "
        f"{cut(json.dumps(slices))}"
    )


def bind_slices(registry: Registry, given: list[Any] | None, path: str, broken: list[str]) -> tuple[Component, ...]:
    """given: the suite's list, None = the default slices, as far as they are installed; path: the suite's; broken:
    receives the messages about plug-ins that cannot be imported. Raises SuiteError and PluginError."""
    if given is None:
        installed = registry.names("slices")
        given = [name for name in KINDS["slices"].defaults if name in installed]
    slices, names, problems = list[Component](), dict[str, int](), Problems()
    for index, value in enumerate(given):
        with problems:
            where = f"{path}: slices.{index}"
            slices.append(bind_component(registry, "slices", value, where, broken))
            name = _name(registry, slices[-1], where)
            if name is not None and names.setdefault(name, index) != index:
                raise SuiteError(f"{where}: {name} is already given, as slices.{names[name]}")
    problems.raise_found()
    return tuple(slices)


def _name(registry: Registry, component: Component, where: str) -> str | None:
    """The name of the slice, None where its plug-in is broken."""
    try:
        built = registry.build("slices", component, where=where)
    except BrokenPluginError:
        return None
    except ValueError as error:
        raise SuiteError(f"{where}: {error}") from error
    name = getattr(built, "name", None)
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise PluginError(
            f"{where}: slice {component.name!r}: its attribute name should be text such as gap or gap@1h,1d, got "
            f"{name!r}"
        )
    return name
