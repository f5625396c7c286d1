"""`grbench run`: runs a suite and prints its table."""

from __future__ import annotations

from typing import Any

import click

from grbench.commands import complete
from grbench.commands.options import cache_option, overrides_option, results_option
from grbench.commands.streams import say


@click.command()
@click.argument("suite", shell_complete=complete.suites)
@overrides_option
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.methods,
    help="Run this method (or grid) only; repeatable.",
)
@click.option("--seeds", type=click.IntRange(min=1), metavar="N", help="Run the first N seeds only.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--backend",
    type=click.Choice(["local", "ray", "slurm"]),
    default="local",
    show_default=True,
    help="Where cells run: on this machine, on a Ray cluster, or as Slurm jobs.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Run N cells at once. On this machine (default 1) each has 1/N of the cores and one GPU, as far as memory "
    "allows; the default of a cluster is as many as there is room for.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Of the Ray cluster; default RAY_ADDRESS, else Ray is started on this machine alone.",
)
@click.option(
    "--cpus",
    type=click.IntRange(min=1),
    metavar="N",
    help="CPUs of each cell on a cluster; default OMP_NUM_THREADS, else 4.",
)
@click.option(
    "--scheduler",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of sbatch for Slurm jobs, as partition=gpu or time=120; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan, disk and memory included, and stop.")
@click.option("--force", is_flag=True, help="Run finished cells again too, from their beginning.")
@click.option("--oversize", is_flag=True, help="Run cells that are not expected to fit into memory or on the disk.")
@results_option
@cache_option
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Stop a cell after this time."
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(min=0),
    default=10,
    show_default=True,
    metavar="MINUTES",
    help="Save what training has come to after each epoch and so often within one; 0 = never.",
)
@click.option(
    "--keep",
    type=click.Choice(["weights"]),
    multiple=True,
    help="Keep each trained model, from which cells with another retriever, filter or list length are ranked.",
)
@click.pass_context
def run(context: click.Context, /, suite: str, only: tuple[str, ...], **options: Any) -> None:
    """Run a suite: every method with every seed (a cell), each in its own process, then print the table.

    SUITE is a YAML file or the name of an installed suite (`grbench suite list`).

    Where the suite has `tuning`, its methods' options are tuned first, on validation scores; trials are kept too.

    Finished cells are not run again. Failed cells are rows of the table with their reason, and are tried again by the
    same command; a training that was stopped goes on from its last checkpoint. Ctrl-C keeps finished cells. Exit
    status: 0 success, 1 some cells failed, 2 invalid suite or arguments, 130 interrupted (143 by SIGTERM, 141 where
    nobody reads the output any more).

    \b
    grbench run quickstart
    grbench run quickstart --only most_popular --seeds 1
    grbench run preliminary_round --set dataset.path=data/TencentGR-1M --dry-run
    grbench run my_suite.yaml --jobs 4
    grbench run my_suite.yaml --keep weights --checkpoint-minutes 5
    grbench run my_suite.yaml --backend ray --address 10.0.0.1:6379 --cpus 8
    grbench run my_suite.yaml --backend slurm --device cuda --scheduler partition=gpu --scheduler time=240
    """
    from rich.console import Console

    from grbench.report.format import counted
    from grbench.report.next_steps import next_steps
    from grbench.report.render import print_tables
    from grbench.report.table import tables
    from grbench.run.run_request import RunRequest
    from grbench.run.run_suite import run_suite
    from grbench.suite.installed import installed_suites

    console = Console()
    outcome = run_suite(RunRequest(suite=suite, only=only or None, **options), console)
    print_tables(tables(outcome.records), console)
    failed = [record for record in outcome.records if record.status != "ok"]
    if failed:
        logs = options["results"] / failed[0].suite
        logged = any((logs / f"{record.digest}.log").is_file() for record in failed)  # not where a plug-in is broken
        where = f"; what they printed is in {logs}/<digest>.log" if logged else ""
        say(f"\n{counted(len(failed), 'cell')} of {len(outcome.records)} failed{where}:")
        for record in failed:
            say(f"  {record.digest}  {record.method}, seed {record.seed}: {record.status}")
        say("Once what stopped them is mended, the same command tries these cells again, and no others.")
    if outcome.records:
        by_name = suite if suite in installed_suites() else None
        if steps := next_steps(outcome.records, options["results"] / outcome.records[0].suite, by_name):
            say(f"\n{steps}")
    context.exit(outcome.code)
