"""Plug-ins that are right but for one fault, by the check of the conformance kit that finds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grbench.hookspecs import hookimpl
from grbench.registry.discovery import Registry
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.plain_parts import PlainParts

FAULTY: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {}
"""{(kind, check): (factory, options)}"""


def fails(kind: str, check: str, **options: Any) -> Callable[[Any], Any]:
    """A decorator that says which check the plug-in fails."""

    def named(factory: Any) -> Any:
        assert (kind, check) not in FAULTY
        FAULTY[kind, check] = factory, options
        return factory

    return named


def checked(kind: str, factory: Any, **options: Any) -> CheckedPlugin:
    """The plug-in in a registry of the kit's plain parts."""

    @hookimpl(specname=f"register_{kind}")
    def register_it(register):
        register("checked", factory)

    registry = Registry()
    registry.add("plain", "grbench", "1", PlainParts)
    registry.add("tested", "tested", "1", lambda: type("Tested", (), {"register": staticmethod(register_it)}))
    return CheckedPlugin(registry, kind, "checked", options)
