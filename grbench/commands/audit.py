"""`grbench audit`: looks for leaks in the methods of a suite."""

from __future__ import annotations

from typing import Any

import click

from grbench.commands import complete
from grbench.commands.options import overrides_option, results_option
from grbench.commands.streams import say


@click.command()
@click.argument("suite", shell_complete=complete.suites)
@overrides_option
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.methods,
    help="Audit this method (or grid) only; repeatable.",
)
@click.option("--audit", "audits", multiple=True, metavar="NAME", help="Make this audit only; repeatable.")
@click.option("--own-data", is_flag=True, help="On the suite's own data, cut down, in place of a synthetic world.")
@click.option("--full-size", is_flag=True, help="With widths and counts as the suite has them; only training is short.")
@results_option
@click.option("--format", "form", type=click.Choice(["terminal", "md", "json"]), default="terminal", show_default=True)
@click.pass_context
def audit(context: click.Context, /, only: tuple[str, ...], form: str, **options: Any) -> None:
    """Look for leaks: whether a method, its protocol or its metrics see what they must not see.

    SUITE is a YAML file or the name of an installed suite (`grbench suite list`). Each method is audited on a small
    synthetic world, for which the suite's data need not be there. The audits are test_targets, evaluated_futures,
    chance, causality and files. What they found is kept as audit.json in the suite's folder of results.

    Exit status: 0 all pass, 1 a leak was found or an audit could not be made, 2 invalid suite or arguments.

    \b
    grbench audit quickstart
    grbench audit final_round --only baseline --audit causality
    grbench audit my_suite.yaml --own-data --format md
    """
    from rich.console import Console

    from grbench.audit.audit_suite import AuditRequest, audit_suite
    from grbench.audit.audit_table import audit_table

    made = audit_suite(AuditRequest(only=only or None, **options), Console(stderr=form != "terminal"))
    say(made.to_json() if form == "json" else audit_table(made, "md" if form == "md" else "terminal"), nl=False)
    context.exit(0 if all(method.clean for method in made.methods) else 1)
