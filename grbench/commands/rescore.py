"""`grbench rescore`: computes further metrics and slices of finished records from their kept lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from grbench.commands import complete
from grbench.commands.options import cache_option
from grbench.commands.streams import complain, say


@click.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--metric",
    "metrics",
    shell_complete=complete.metrics,
    multiple=True,
    metavar="METRIC",
    help="A metric as in a suite, such as novelty@10 or '{name: novelty, k: 10, by: events}'; repeatable.",
)
@click.option(
    "--slice",
    "slices",
    shell_complete=complete.plugins("slices"),
    multiple=True,
    metavar="SLICE",
    help="A slice as in a suite, such as popularity or '{name: gap, bounds: [1h, 1d]}'; repeatable.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="dataset.KEY=VALUE",
    help="Where the data are now, if they have moved (dataset.path=DIR); repeatable.",
)
@cache_option
@click.pass_context
def rescore(context: click.Context, /, results: tuple[Path, ...], **options: Any) -> None:
    """Compute further metrics of all finished records from their kept lists, or divide their users into groups by
    further slices; nothing is trained or searched.

    Records are changed in place and keep their other metrics and slices. `grbench run` takes the cells of a suite whose
    metrics they have for done. A record whose lists are too short is left as it is and named with the longest cutoff
    that is possible. Exit status: 0 all records have them now, 1 some cannot, 2 none can or the request is wrong.

    \b
    grbench rescore results/quickstart --metric novelty@10
    grbench rescore results --metric coverage@10 --metric '{name: novelty, k: 10, by: events}'
    grbench rescore results/final_round --slice history_length --slice popularity
    grbench rescore results/final_round --metric gini@10 --set dataset.path=/data/TencentGR-10M
    """
    from rich.console import Console

    from grbench.report.format import counted
    from grbench.run.progress import progress_for
    from grbench.run.rescore import RescoreRequest
    from grbench.run.rescore import rescore as rescore_records

    if not options["metrics"] and not options["slices"]:
        raise click.UsageError("name what to add by --metric or --slice, such as --metric novelty@10")
    progress = progress_for(Console())
    try:
        outcome = rescore_records(RescoreRequest(results, **options), progress)
    finally:
        progress.close()
    before = f" ({outcome.already:,} had them before)" if outcome.already else ""
    say(f"{counted(len(outcome.records), 'record')} have them now{before}")
    for line in outcome.refused:
        complain(f"not scored: {line}")
    context.exit(1 if outcome.refused else 0)
