"""`grbench table`: makes tables from records."""

from __future__ import annotations

import os
from pathlib import Path

import click

from grbench.commands.streams import complain, say
from grbench.errors import RunError


@click.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "md", "latex", "csv", "svg"]),
    help="[default: by the suffix of --out, else terminal, or md where the output goes to a file or a pipe]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write there instead of the terminal; a name in .txt (as on a terminal), .md, .tex, .csv or .svg.",
)
@click.option("--slice", "by", metavar="NAME", help="One metric within the groups of users of this slice.")
@click.option("--metric", metavar="NAME", help="With --slice: the metric  [default: the first]")
def table(results: tuple[Path, ...], form: str | None, out: Path | None, by: str | None, metric: str | None) -> None:
    """Make tables from records in folders of results or in single record files.

    Records that cannot be compared (other data, protocol, candidate pool or metric version) are in separate tables.
    Records and lists that were altered after they were written, and lists that are gone, are named and refused.

    \b
    grbench table results/quickstart
    grbench table results/quickstart --format latex --out quickstart.tex
    grbench table results/final_round other_machine/final_round --format csv
    grbench table results/quickstart --slice popularity --metric ndcg@10
    """
    if metric is not None and by is None:
        raise click.UsageError("--metric goes with --slice; without it, a table has all metrics")
    from rich.console import Console

    from grbench.report.render import format_of_file, print_tables, render
    from grbench.report.slices import slice_tables
    from grbench.report.table import tables
    from grbench.results.integrity import intact_records

    records = intact_records(results, note=lambda text: complain(f"note: {text}"))
    if not records:
        raise RunError(f"{', '.join(map(str, results))}: there are no records; grbench run SUITE writes them")
    made = tables(records) if by is None else slice_tables(records, by, metric)
    if out is not None:
        text = render(made, format_of_file(out, form))
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RunError(f"{out}: cannot be written ({error.strerror})") from error
    elif form in (None, "terminal"):
        print_tables(made, Console(force_terminal=True if form and not os.environ.get("NO_COLOR") else None))
    else:
        say(render(made, form or "md"), nl=False)
