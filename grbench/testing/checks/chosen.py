"""Which plug-ins are to be checked, by the words of a command or a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from grbench.errors import PluginError, SuiteError, cut
from grbench.hookspecs import KINDS, singular
from grbench.registry.discovery import Registry
from grbench.registry.options import flat_values, suggestion
from grbench.testing.checks.checked_plugin import CheckedPlugin, check_partners
from grbench.testing.workbench import PluginChoice

Options = Mapping[str, Any]
"""Options of the only plug-in that is named, or {`kind:name`: options of this plug-in}."""


@dataclass
class Chosen:
    """plugins: that can be checked; not_checked: {`kind:name`: why a plug-in of a distribution cannot be, such as an
    option that must be given}."""

    plugins: list[CheckedPlugin] = field(default_factory=list)
    not_checked: dict[str, str] = field(default_factory=dict)


def chosen_plugins(
    registry: Registry,
    requests: Iterable[str],
    options: Options | None = None,
    partners: Mapping[str, PluginChoice] | None = None,
) -> Chosen:
    """The plug-ins that are named. requests: `kind:name`, or the name of a distribution, which stands for all its
    plug-ins.

    Raises PluginError for an unknown kind, plug-in, distribution or partner and for a plug-in that is broken,
    SuiteError for options that do not fit a partner or a plug-in that is named itself, or are those of no plug-in that
    is named.
    """
    check_partners(registry, partners or {})
    named = list(requests)
    found = [(key, ":" in request) for request in named for key in _keys(registry, request)]
    given = _by_plugin(options or {}, [key for key, _ in found], named)
    chosen = Chosen()
    for (kind, name), itself in dict(found).items():
        plugin = CheckedPlugin(registry, kind, name, given.get(f"{singular(kind)}:{name}"), partners)
        try:
            flat_values(plugin.plugin.factory, plugin.options, plugin.id)
        except SuiteError as error:
            if itself or plugin.options:
                raise
            chosen.not_checked[plugin.id] = str(error)
        else:
            chosen.plugins.append(plugin)
    return chosen


def _keys(registry: Registry, request: str) -> list[tuple[str, str]]:
    """(kind, name) of the plug-ins of a request."""
    every = [(kind, name) for kind in KINDS for name in registry.names(kind)]
    if ":" in request:
        kind, _, name = request.partition(":")
        plural = _plural(kind, request)
        registry.origin(plural, name)  # raises where it is unknown
        return [(plural, name)]
    wanted = _normal(request)
    own = [key for key in every if _normal(registry.origin(*key)[0]) == wanted]
    if own:
        return own
    broken = [each for each in registry.broken_packages if _normal(each.distribution) == wanted]
    if broken:
        raise PluginError(f"distribution {request}: its plug-ins cannot be registered: {broken[0].reason}")
    distributions = sorted({registry.origin(*key)[0] for key in every})
    kinds_of_name = [f"{singular(kind)}:{name}" for kind, name in every if name == request]
    hint = f"did you mean {' or '.join(kinds_of_name)}?" if kinds_of_name else suggestion(request, distributions)
    raise PluginError(f"{cut(request)}: no installed distribution with plug-ins has this name; {hint}")


def _plural(kind: str, request: str) -> str:
    for plural in KINDS:
        if kind in (plural, singular(plural)):
            return plural
    raise PluginError(f"{cut(request)}: unknown kind {cut(kind)!r}; {suggestion(kind, map(singular, KINDS))}")


def _by_plugin(options: Options, found: list[tuple[str, str]], requests: list[str]) -> dict[str, dict[str, Any]]:
    """{`kind:name`, singular: options}."""
    ids = [f"{singular(kind)}:{name}" for kind, name in dict.fromkeys(found)]
    if not any(":" in key for key in options):
        if options and len(ids) != 1:
            raise SuiteError(
                f"options {', '.join(options)}: say of which plug-in, such as {ids[0]}, since {', '.join(requests)} "
                f"stands for {len(ids)}"
            )
        return {ids[0]: dict(options)} if options else {}
    given: dict[str, dict[str, Any]] = {}
    for key, own in options.items():
        kind, _, name = key.partition(":")
        plugin = f"{singular(_plural(kind, key))}:{name}"
        if plugin not in ids:
            raise SuiteError(f"options of {cut(key)}: this plug-in is not checked; {suggestion(plugin, ids)}")
        given[plugin] = dict(own)
    return given


def _normal(distribution: str) -> str:
    """Names of distributions are compared as pip does."""
    import re

    return re.sub(r"[-_.]+", "-", distribution).lower()
