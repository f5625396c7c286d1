"""`grbench export`: writes the kept lists of a method in the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from grbench.commands.streams import say


@click.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--method", required=True, metavar="NAME", help="The method, as tables call it.")
@click.option("--seed", type=int, help="Which seed  [default: the only one]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "trec", "json", "csv"]),
    help="[default: by the suffix of --out: .parquet; .trec, .run, .txt; .json; .csv, .tsv]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The file to write.")
@click.option("--kept", is_flag=True, help="Write the longer lists that keep_lists asked for.")
@click.option("--qrels", type=click.Path(path_type=Path), metavar="FILE", help="Also write the targets, as TREC qrels.")
def export(form: str | None, out: Path, qrels: Path | None, **options: Any) -> None:
    """Write the lists of a finished cell, with the dataset's ids, for other tools or for `grbench score`.

    Formats: parquet, a TREC run, the result.json of the 2025 challenge, CSV. Scoring the file under the same suite
    gives the same values. In TREC and CSV a user without any item has no line (`--missing empty` when scoring).

    \b
    grbench export results/quickstart --method most_popular --seed 0 --out lists.parquet
    grbench export results/quickstart --method baseline --seed 0 --out baseline.run --qrels targets.qrels
    grbench export results/final_round --method hstu --seed 1 --format json --out result.json --kept
    """
    from rich.console import Console

    from grbench.ranking_files.formats import format_of
    from grbench.ranking_files.write import write_lists, write_qrels
    from grbench.run.export import ExportRequest, chosen_record, lists_of
    from grbench.run.open_data import reporting_to
    from grbench.run.progress import progress_for

    chosen = format_of(out, form)
    request = ExportRequest(**options)
    record = chosen_record(request)
    lists = lists_of(record, kept=request.kept)
    progress = progress_for(Console(stderr=True))
    try:
        progress.plan([None])
        progress.start(f"writing {out.name}", 0)
        write_lists(lists, out, chosen, reporting_to(progress))
    finally:
        progress.close()
    if qrels is not None:
        write_qrels(lists, qrels)
    say(f"{out}: {len(lists):,} lists of {record.method}, seed {record.seed}")
