"""`grbench check`: whether plug-ins do what their interfaces promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from grbench.commands.streams import say

if TYPE_CHECKING:
    from grbench.testing.checks.check import Check
    from grbench.testing.checks.checked_plugin import CheckedPlugin
    from grbench.testing.checks.chosen import Chosen
    from grbench.testing.checks.run_checks import CheckOutcome


@click.command()
@click.argument("plugins", nargs=-1, required=True, metavar="DISTRIBUTION|KIND:NAME...")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Give the plug-in an option; repeatable. Of several plug-ins: KIND:NAME.KEY=VALUE.",
)
@click.option(
    "--with",
    "partners",
    multiple=True,
    metavar="PART=NAME",
    help="Put the plug-in together with this tokenizer, encoder or loss; repeatable.",
)
@click.option("--check", "names", multiple=True, metavar="NAME", help="Make this check only; repeatable.")
@click.pass_context
def check(
    context: click.Context,
    /,
    plugins: tuple[str, ...],
    settings: tuple[str, ...],
    partners: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Check whether plug-ins do what their interfaces promise: one of them, or all of a distribution.

    The checks are made on a small made-up data set, without a GPU: about 15 seconds for an encoder, a few for another
    kind. What fails is told with what was seen, what it means and how to mend it; while you mend it, --check NAME tries
    this alone. A check that would show nothing but another one's failure is skipped. A plug-in that has required
    options needs them by --set.

    Exit status: 0 nothing failed, 1 a check failed, 2 invalid arguments.

    \b
    grbench check my-distribution
    grbench check encoder:causal_transformer --set width=16
    grbench check encoder:causal_transformer --check shapes --check causality
    grbench check my-distribution --set tokenizer:codes_file.path=codes.json
    """
    from grbench.registry.discovery import Registry
    from grbench.testing.checks.chosen import chosen_plugins
    from grbench.testing.checks.outcome_table import summary_of

    chosen = chosen_plugins(Registry.load(), plugins, _options(settings), dict(map(_partner, partners)))
    wanted = _wanted(chosen, names)
    outcomes = [outcome for plugin, checks in wanted for outcome in _run(plugin, checks)]
    for plugin_id, reason in chosen.not_checked.items():
        say(f"{plugin_id}: not checked: {reason}\n")
    say(summary_of(outcomes))
    context.exit(1 if any(outcome.verdict == "failed" for outcome in outcomes) else 0)


def _wanted(chosen: Chosen, names: tuple[str, ...]) -> list[tuple[CheckedPlugin, list[Check]]]:
    """Each plug-in with its checks of these names, all where there are none; raises SuiteError for an unknown one."""
    from grbench.errors import SuiteError, cut
    from grbench.registry.options import suggestion
    from grbench.testing.checks.all_checks import CHECKS

    known = {each.name for plugin in chosen.plugins for each in CHECKS[plugin.kind]}
    for name in names:
        if name not in known:
            raise SuiteError(f"--check {cut(name)}: there is no such check; {suggestion(name, known)}")
    pairs = [
        (plugin, [each for each in CHECKS[plugin.kind] if not names or each.name in names]) for plugin in chosen.plugins
    ]
    return [(plugin, checks) for plugin, checks in pairs if checks]


def _run(plugin: CheckedPlugin, checks: list[Check]) -> list[CheckOutcome]:
    """Runs the checks; each is named when it begins, and its verdict is said when it ends."""
    from grbench.testing.checks.outcome_table import failures_of, names_of, verdict_of
    from grbench.testing.checks.run_checks import run_check

    say(plugin.id)
    outcomes = []
    for each, name in zip(checks, names_of(checks), strict=True):
        say(name, nl=False)
        outcomes.append(run_check(each, plugin))
        say(verdict_of(outcomes[-1]))
    for line in [*failures_of(outcomes), ""]:
        say(line)
    return outcomes


def _options(settings: tuple[str, ...]) -> dict[str, Any]:
    """Options as `chosen_plugins` takes them. Raises SuiteError for a setting without `=`."""
    from grbench.errors import SuiteError, cut
    from grbench.suite.file import parse_yaml

    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise SuiteError(f"--set {cut(setting)}: should be KEY=VALUE, such as width=16")
        value = parse_yaml(text, f"--set {cut(setting)}")
        if ":" in key:
            plugin, _, option = key.partition(".")
            if not option:
                raise SuiteError(f"--set {cut(setting)}: should be KIND:NAME.KEY=VALUE, such as {plugin}.width=16")
            options.setdefault(plugin, {})[option] = value
        else:
            options[key] = value
    return options


def _partner(setting: str) -> tuple[str, Any]:
    """(part, plug-in). Raises SuiteError for a setting without `=` and a part that is none of PARTNERS."""
    from grbench.errors import SuiteError, cut
    from grbench.suite.file import parse_yaml
    from grbench.testing.checks.checked_plugin import PARTNERS

    part, equals, text = setting.partition("=")
    if not equals or part not in PARTNERS:
        parts = ", ".join(PARTNERS)
        raise SuiteError(f"--with {cut(setting)}: should be PART=NAME, such as tokenizer=ids; PART is one of {parts}")
    return part, parse_yaml(text, f"--with {cut(setting)}")
