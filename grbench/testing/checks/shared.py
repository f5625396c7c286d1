"""Checks of every kind of plug-in."""

from __future__ import annotations

from dataclasses import replace

from grbench.registry.options import describe
from grbench.testing.checks.check import Check, KindChecks, require
from grbench.testing.checks.checked_plugin import CheckedPlugin

_SHARED = KindChecks("")


@_SHARED.add(
    means="`grbench plugins show` and the documentation say nothing about an option.",
    mend="Add a line `name: what it is` to the section `Args:` of the factory's docstring.",
)
def options_are_documented(plugin: CheckedPlugin) -> None:
    """Each option has a line of documentation."""
    silent = [option.name for option in describe(plugin.plugin.factory) if not option.doc]
    require(not silent, f"no documentation of {', '.join(silent)}")


def shared_checks(kind: str) -> tuple[Check, ...]:
    """Of a kind."""
    return tuple(replace(check, kind=kind) for check in _SHARED.all)
