"""`grbench merge`: joins folders of results."""

from __future__ import annotations

from pathlib import Path

import click

from grbench.commands.streams import complain, say


@click.command()
@click.argument("folders", metavar="DIR...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder to copy to; it may have results.",
)
@click.option("--newest", is_flag=True, help="Where scores of a cell differ, take the newest record.")
def merge(folders: tuple[Path, ...], out: Path, newest: bool) -> None:
    """Copy results of several folders or machines into one, with one folder per suite: records, lists, logs, and what
    else lies beside them.

    Of a cell with several records, a successful one is taken before a failed one, then the newest. Cells of which two
    successful records have other scores are named, and nothing is copied, unless --newest is given. Altered files are
    refused. The searches of tuned methods are copied where one folder alone has any of a suite.

    \b
    grbench merge results /mnt/other_machine/results --out results/all
    grbench table results/all/quickstart
    """
    from rich.console import Console
    from rich.progress import track

    from grbench.report.format import counted
    from grbench.results.merge import copy_cell, plan_merge
    from grbench.results.merge_searches import copy_searches

    def note(text: str) -> None:
        complain(f"note: {text}")

    copies, stay = plan_merge(folders, out, newest=newest, note=note)
    for copy in track(copies, "copying", console=Console(stderr=True), transient=True):
        copy_cell(copy)
    copy_searches(folders, out, note)
    suites = ", ".join(sorted({copy.found.record.suite for copy in copies}))
    say(f"{out}: {counted(len(copies), 'cell')} copied{f' ({suites})' if suites else ''}, {stay} there already")
