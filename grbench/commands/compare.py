"""`grbench compare`: compares two methods."""

from __future__ import annotations

import os
from pathlib import Path

import click

from grbench.commands import complete
from grbench.commands.streams import say
from grbench.errors import RunError


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    multiple=True,
    default=(Path("results"),),
    show_default=True,
    metavar="DIR",
    help="Folder of results, or a record; repeatable.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.metrics,
    help="Compare by this metric only; repeatable.",
)
@click.option(
    "--slice",
    "by",
    metavar="NAME",
    shell_complete=complete.plugins("slices"),
    help="Compare within the groups of users of this slice too.",
)
@click.option(
    "--users",
    type=click.IntRange(0, 10_000),
    default=10,
    show_default=True,
    metavar="N",
    help="How many users to list.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "md", "latex", "csv"]),
    help="[default: terminal, or md where the output goes to a file or a pipe]",
)
def compare(
    *,
    first: str,
    second: str,
    results: tuple[Path, ...],
    metrics: tuple[str, ...],
    by: str | None,
    users: int,
    form: str | None,
) -> None:
    """Compare two methods: by each metric, both means, their difference and its p; users won, lost and the same; and
    the users for whom they differ most.

    A and B are methods as tables name them, or suite/method where several suites have one of that name. Nothing is run:
    all is computed from the users' values beside the records.

    \b
    grbench compare sasrec most_popular --results results/amazon_beauty
    grbench compare sasrec most_popular --metric ndcg@10 --slice popularity
    grbench compare amazon_beauty/sasrec amazon_beauty/tiger --users 50 --format csv
    """
    from rich.console import Console

    from grbench.report.compare import compare as compared
    from grbench.report.render import print_tables, render
    from grbench.results.integrity import intact_records

    records = intact_records(results, note=lambda text: click.echo(f"note: {text}", err=True))
    if not records:
        raise RunError(f"{', '.join(map(str, results))}: there are no records; grbench run SUITE writes them")
    made = compared(records, first, second, metrics=metrics, by=by, users=users)
    if form in (None, "terminal"):
        print_tables(made, Console(force_terminal=True if form and not os.environ.get("NO_COLOR") else None))
    else:
        say(render(made, form or "md"), nl=False)
