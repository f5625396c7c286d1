"""The packages with plug-ins and suites that are installed."""

from __future__ import annotations

from collections import Counter
from importlib import metadata

from grbench.doctor.diagnosis import Diagnosis
from grbench.errors import PluginError
from grbench.hookspecs import GROUP, KINDS
from grbench.invocation import pip, program
from grbench.registry.discovery import BrokenPlugin, Registry
from grbench.suite.installed import installed_suites


def plugins(*, thorough: bool = False) -> list[Diagnosis]:
    """Which packages have plug-ins, and which are broken. thorough: each plug-in is imported, and not only the packages
    that register them."""
    try:
        registry = Registry.load()
    except PluginError as error:
        return [Diagnosis("plug-ins", str(error), "stop", pip("uninstall NAME"))]
    origins = [registry.origin(kind, name) for kind in KINDS for name in registry.names(kind)]
    listed = [
        {"distribution": distribution, "version": version, "plugins": amount}
        for (distribution, version), amount in Counter(origins).items()
    ]
    shown = ", ".join("{plugins} of {distribution} {version}".format_map(each) for each in listed)
    facts = {"packages": listed, "entry_points": len(metadata.entry_points(group=GROUP))}
    if not listed:
        remedy = pip("install --force-reinstall --no-deps grbench")
        return [Diagnosis("plug-ins", "none are registered, not even grbench's own", "stop", remedy, facts)]
    found = [Diagnosis("plug-ins", shown, facts=facts)]
    return [*found, *map(_broken, registry.broken if thorough else registry.broken_packages)]


def _broken(plugin: BrokenPlugin) -> Diagnosis:
    text = f"{plugin.kind} {plugin.name} of {plugin.distribution} {plugin.version} is broken: {plugin.reason}"
    remedy = f"methods that use it cannot run; {pip(f'install --upgrade {plugin.distribution}')}, or uninstall it"
    return Diagnosis("plug-ins", text, "note", remedy)


def suites() -> Diagnosis:
    """The suites that can be run by name."""
    names = list(installed_suites())
    if not names:
        remedy = pip("install --force-reinstall --no-deps grbench")
        return Diagnosis("suites", "none are installed; only files can be run", "note", remedy)
    text = f"{', '.join(names)} ({program()} suite list)"
    return Diagnosis("suites", text, facts={"names": names})
