"""`grbench reproduce`: runs a suite and holds its rows against published figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grbench.commands import complete
from grbench.commands.run import run
from grbench.commands.streams import complain, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grbench.results.record import Record
    from grbench.suite.suite import Suite

LEFT_OUT = ("suite", "dry_run")
"""Parameters of `grbench run` that this command does not take over."""


@click.command()
@click.argument("suite", shell_complete=complete.suites)
@click.option("--from-records", is_flag=True, help="Judge the records that there are: nothing is run, no data is read.")
@click.pass_context
def reproduce(context: click.Context, /, suite: str, *, from_records: bool, **options: Any) -> None:
    """Run what is not done of a suite, then say of each row whether its published figures are met.

    The figures are those of the suite's key `published`. One is met where our 95 % interval holds it; else ours is
    above or below, in the sense of better or worse. Exit status: 0 all figures of the same protocol are met or
    exceeded, 1 some are not, or cells failed, 2 invalid suite or arguments, or a suite without published figures.

    \b
    grbench reproduce amazon_beauty
    grbench reproduce preliminary_round --only reproduction_hstu --seeds 1
    grbench reproduce amazon_beauty --from-records --results other_machine/results
    """
    from grbench.cache import cache_folder
    from grbench.errors import SuiteError
    from grbench.registry.discovery import Registry
    from grbench.report.reproduction import reproduction
    from grbench.suite.suite import load_suite

    registry = Registry.load(signature_cache=cache_folder(options["cache"]))
    loaded = load_suite(suite, options["overrides"])
    cells = loaded.cells(registry, options["only"] or None, options["seeds"])
    methods = list(dict.fromkeys(cell.method.name for cell in cells))
    expected = {method: [figure["metric"] for figure in loaded.published.get(method, ())] for method in methods}
    if not any(expected.values()):
        raise SuiteError(
            f"{loaded.path}: published: has no figure of {'these methods' if options['only'] else 'any method'}; "
            "give some, or name a suite that has them (grbench suite list)"
        )
    if from_records:
        records = _records_there(loaded, options["results"], methods, {cell.seed for cell in cells})
    else:
        records = _run(context, suite, options)
    if loaded.other_metrics:
        recorded = {metric for record in records for metric in record.metrics}
        expected = {
            method: [metric for metric in metrics if metric in recorded] for method, metrics in expected.items()
        }
    report = reproduction(records, expected)
    say(f"\n{report.text()}")
    context.exit(0 if report.met else 1)


def _run(context: click.Context, suite: str, options: dict[str, Any]) -> list[Record]:
    """The records of all cells; ends the command where the run was interrupted."""
    from rich.console import Console

    from grbench.run.run_request import RunRequest
    from grbench.run.run_suite import run_suite

    options["only"] = options["only"] or None
    outcome = run_suite(RunRequest(suite=suite, **options), Console())
    if not outcome.records:
        context.exit(outcome.code)
    return outcome.records


def _records_there(suite: Suite, results: Path, methods: Sequence[str], seeds: set[int]) -> list[Record]:
    """The records of these methods and seeds, with the suite's figures of now; raises RunError where there are none."""
    from grbench.errors import RunError
    from grbench.results.integrity import intact_records

    folder = results / suite.name
    found = intact_records([folder], note=lambda text: complain(f"note: {text}")) if folder.is_dir() else []
    records = [
        replace(
            record,
            published=[
                figure for figure in suite.published.get(record.method, ()) if figure["metric"] in record.metrics
            ],
        )
        for record in found
        if record.method in methods and record.seed in seeds
    ]
    if not records:
        raise RunError(f"{folder}: there are no records of this suite; without --from-records it is run")
    return records


reproduce.params.extend(option for option in run.params if option.name not in LEFT_OUT)
