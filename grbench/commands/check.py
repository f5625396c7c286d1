"""`grbench check`: whether plug-ins do what their interfaces promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from grbench.commands.streams import say

if TYPE_CHECKING:
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

    Each check is made on a small made-up data set, in seconds and without a GPU. What fails is told with what was seen,
    what it means and how to mend it. A plug-in that has required options needs them by --set.

    Exit status: 0 nothing failed, 1 a check failed, 2 invalid arguments.

    \b
    grbench check my-distribution
    grbench check encoder:causal_transformer --set width=16
    grbench check my-distribution --set tokenizer:codes_file.path=codes.json
    """
    from grbench.registry.discovery import Registry
    from grbench.testing.checks.chosen import chosen_plugins
    from grbench.testing.checks.outcome_table import outcome_table

    chosen = chosen_plugins(Registry.load(), plugins, _options(settings), dict(map(_partner, partners)))
    outcomes = _run(chosen, names)
    say(outcome_table(outcomes, chosen.not_checked), nl=False)
    context.exit(1 if any(outcome.verdict == "failed" for outcome in outcomes) else 0)


def _run(chosen: Chosen, names: tuple[str, ...]) -> list[CheckOutcome]:
    """Runs the checks of these names, all without names; raises SuiteError where no plug-in has a check."""
    from rich.console import Console
    from rich.progress import Progress

    from grbench.errors import SuiteError, cut
    from grbench.registry.options import suggestion
    from grbench.testing.checks.all_checks import CHECKS
    from grbench.testing.checks.run_checks import run_check

    every = [(each, plugin) for plugin in chosen.plugins for each in CHECKS[plugin.kind]]
    known = {each.name for each, _ in every}
    for name in names:
        if name not in known:
            raise SuiteError(f"--check {cut(name)}: there is no such check; {suggestion(name, known)}")
    wanted = [pair for pair in every if not names or pair[0].name in names]
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("checks", total=len(wanted))
        outcomes = []
        for each, plugin in wanted:
            progress.update(task, description=f"{plugin.id} {each.name}")
            outcomes.append(run_check(each, plugin))
            progress.advance(task)
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
    from grbench.errors import SuiteError, cut
    from grbench.suite.file import parse_yaml

    part, equals, text = setting.partition("=")
    if not equals:
        raise SuiteError(f"--with {cut(setting)}: should be PART=NAME, such as tokenizer=ids")
    return part, parse_yaml(text, f"--with {cut(setting)}")
