"""`grbench score`: scores rankings that were made elsewhere under a suite's protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from grbench.commands import complete
from grbench.commands.options import cache_option, overrides_option, results_option
from grbench.types import MAX_SEED


@click.command()
@click.argument("lists", type=click.Path(path_type=Path))
@click.option(
    "--suite",
    required=True,
    metavar="SUITE",
    shell_complete=complete.suites,
    help="The suite whose dataset, protocol and metrics count.",
)
@click.option("--name", required=True, metavar="NAME", help="What the row is called in tables.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "trec", "json", "csv"]),
    help="[default: by the suffix: .parquet; .trec, .run, .txt; .json; .csv, .tsv]",
)
@click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Of the method that made them."
)
@click.option("--method-note", "note", default="", metavar="TEXT", help="How the lists were made, for the footer.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="NAME",
    help="A filter that the lists keep to: history, not_indexed, no_training_event, or none; repeatable  "
    "[default: the suite's defaults.filters]",
)
@click.option(
    "--missing",
    type=click.Choice(["refuse", "empty"]),
    default="refuse",
    show_default=True,
    help="What to do with evaluated users who have no list; empty: nothing is found for them.",
)
@overrides_option
@results_option
@cache_option
def score(missing: str, filters: tuple[str, ...], results: Path, **options: Any) -> None:
    """Score a file of ranked lists as an external row of a suite's tables.

    LISTS has the users and items by their ids in the dataset: parquet (user, items and scores as lists), a TREC run,
    the result.json of the 2025 challenge, or CSV (user,item,score or user,item,rank). Scores decide the order, and ties
    count against the target; without scores the order is that of the file. What does not fit the suite is refused with
    a count and the first case.

    \b
    grbench score theirs.run --suite quickstart --name their_model
    grbench score result.json --suite preliminary_round --name onepiece --seed 1 --missing empty
    grbench score lists.parquet --suite final_round --name ours --filter history --method-note "commit 1a2b3c"
    """
    from rich.console import Console

    from grbench.report.render import print_tables
    from grbench.report.table import tables
    from grbench.results.integrity import intact_records
    from grbench.run.progress import progress_for
    from grbench.run.score_file import ScoreRequest, score_file

    console = Console()
    progress = progress_for(console)
    chosen = () if filters == ("none",) else filters or None
    request = ScoreRequest(filters=chosen, empty_if_missing=missing == "empty", results=results, **options)
    try:
        record = score_file(request, progress)
    finally:
        progress.close()
    print_tables(tables(intact_records([results / record.suite], note=lambda _: None)), console)
