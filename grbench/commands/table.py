"""`grbench table`: makes tables from records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from grbench.commands import complete
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
@click.option(
    "--slice",
    "by",
    metavar="NAME",
    shell_complete=complete.plugins("slices"),
    help="One metric within the groups of users of this slice.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.metrics,
    help="These metrics only; repeatable. With --slice: a table for each  [default: the first]",
)
@click.option(
    "--columns",
    multiple=True,
    metavar="NAME[=LABEL],...",
    help="These columns, in this order, after the method's; * stands for all others.",
)
@click.option(
    "--rows",
    multiple=True,
    metavar="NAME[=LABEL],...",
    help="These methods, in this order; * stands for all others. Intervals and marks stay those over all methods.",
)
@click.option(
    "--sort",
    metavar="COLUMN[:asc|:desc]",
    help="Sort the rows by a column  [default: a metric's best or the largest number first, names from A to Z]",
)
@click.option("--caption", metavar="TEXT", help="Plain text in place of the heading.")
@click.option("--label", metavar="NAME", help="LaTeX: the label for references, such as tab:main.")
@click.option(
    "--latex",
    "numbers",
    type=click.Choice(["plain", "siunitx"]),
    help="LaTeX: how numbers are aligned, with the package siunitx by their decimal points  [default: plain]",
)
@click.option(
    "--notes",
    type=click.Choice(["all", "short"]),
    help="LaTeX: the notes below the table; short has dataset, protocol, users and machine as comments  [default: all]",
)
@click.option(
    "--fit",
    type=click.Choice(["column", "page"]),
    help="LaTeX: a wider table is made as small as a column of the text, or as a page of them  [default: column]",
)
def table(
    results: tuple[Path, ...],
    *,
    form: str | None,
    out: Path | None,
    by: str | None,
    metrics: tuple[str, ...],
    columns: tuple[str, ...],
    rows: tuple[str, ...],
    sort: str | None,
    caption: str | None,
    label: str | None,
    numbers: Literal["plain", "siunitx"] | None,
    notes: Literal["all", "short"] | None,
    fit: Literal["column", "page"] | None,
) -> None:
    """Make tables from records in folders of results or in single record files.

    Records that cannot be compared (other data, protocol, candidate pool or metric version) are in separate tables.
    Records and lists that were altered after they were written, and lists that are gone, are named and refused.

    \b
    grbench table results/quickstart
    grbench table results/quickstart --format latex --out quickstart.tex
    grbench table results/final_round other_machine/final_round --format csv
    grbench table results/quickstart --slice popularity --metric ndcg@10
    grbench table results/quickstart --sort ndcg@10 --metric ndcg@10 --metric hit_rate@10
    grbench table results/quickstart --out main.tex --latex siunitx --label tab:main --caption 'Main results' \\
        --columns 'ndcg@10=NDCG,hit_rate@10,train_seconds' --rows 'transformer_infonce=Ours,most_popular=Popularity'
    """
    from rich.console import Console

    from grbench.report.latex import LatexStyle
    from grbench.report.render import format_of_file, print_tables, render
    from grbench.report.slices import slice_tables
    from grbench.report.table import tables
    from grbench.report.view import View
    from grbench.results.atomic import write_atomically
    from grbench.results.integrity import intact_records

    to = format_of_file(out, form) if out is not None else form
    given = {"--label": label, "--latex": numbers, "--notes": notes, "--fit": fit}
    if to != "latex" and (extra := [option for option, value in given.items() if value is not None]):
        raise click.UsageError(f"{', '.join(extra)}: only of LaTeX tables; give --format latex or --out NAME.tex")
    style = LatexStyle(numbers or "plain", fit or "column", notes or "all", label)
    view = View.of_options(columns=columns, rows=rows, metrics=() if by else metrics, sort=sort, caption=caption)
    records = intact_records(results, note=lambda text: complain(f"note: {text}"))
    if not records:
        raise RunError(f"{', '.join(map(str, results))}: there are no records; grbench run SUITE writes them")
    if by is None:
        made = tables(records, view)
    else:
        made = [table for metric in metrics or (None,) for table in slice_tables(records, by, metric, view)]
    if out is not None:
        text = render(made, to or "md", style)
        write_atomically(out, lambda file: file.write(text.encode()))
    elif to in (None, "terminal"):
        print_tables(made, Console(force_terminal=True if to and not os.environ.get("NO_COLOR") else None))
    else:
        say(render(made, to, style), nl=False)
