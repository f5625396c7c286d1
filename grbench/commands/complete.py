"""What a shell offers on TAB for an argument. Nothing heavy is imported, and a file or package that is broken only
means that there is nothing to offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from grbench.errors import GRBenchError

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

USUAL_CUTOFF = 10
"""Offered with each metric, so that a shell ends none with a space: any other number may be written after the @."""


def suites(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of installed suites, and files."""
    from grbench.suite.installed import installed_suites

    return [*_offered(installed_suites(), incomplete), CompletionItem(incomplete, type="file")]


def installed_suite_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of installed suites alone."""
    return suites(context, _parameter, incomplete)[:-1]


def methods(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Methods of the suite that the command line names already."""
    from grbench.suite.file import read_suite_file
    from grbench.suite.installed import suite_file

    # Arguments before an option that has no value yet are not taken for what they are.
    named = context.params.get("suite") or next(iter(context.args), None)
    if named is None:
        return []
    try:
        there = read_suite_file(suite_file(named)).get("methods")
    except GRBenchError:
        return []
    return _offered(there if isinstance(there, dict) else (), incomplete)


def plugins(kind: str | None = None) -> Complete:
    """Names of plug-ins of a kind; None: of the kind that the command line names already."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from grbench.hookspecs import KINDS

        wanted = kind or context.params.get("kind")
        plural = {each.singular: name for name, each in KINDS.items()}
        return _offered(_names(plural.get(str(wanted), str(wanted))), incomplete)

    return complete


def kinds(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Kinds of plug-ins."""
    from grbench.hookspecs import KINDS

    return _offered(KINDS, incomplete)


def metrics(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Metrics, each with and without a cutoff."""
    names = _names("metrics")
    return _offered([*names, *(f"{name}@{USUAL_CUTOFF}" for name in names)], incomplete)


def _names(kind: str) -> list[str]:
    from grbench.registry.discovery import Registry

    try:
        return Registry.load().names(kind)
    except GRBenchError:
        return []


def _offered(names: Iterable[Any], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(str(name)) for name in sorted(map(str, names)) if str(name).startswith(incomplete)]
