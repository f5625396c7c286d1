"""`grbench prune`: removes results that a suite no longer has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grbench.commands import complete
from grbench.commands.options import overrides_option, results_option
from grbench.commands.streams import say
from grbench.errors import RunError

if TYPE_CHECKING:
    from grbench.results.record import Record


@click.command()
@click.argument("suite", shell_complete=complete.suites)
@overrides_option
@results_option
@click.option("--yes", is_flag=True, help="Remove without asking.")
def prune(suite: str, overrides: tuple[str, ...], results: Path, yes: bool) -> None:
    """Remove records, lists, logs, checkpoints and weights of cells that a suite no longer has: of other options, other
    sources of its plug-ins or other data; and what killed processes left half-written.

    They are listed with their sizes first, then removed once you agree. Cells that run just now, records whose lists or
    weights are needed for other cells, and files that grbench did not write stay; so do the trials of the suite's
    searches and rankings from elsewhere (grbench score).

    \b
    grbench prune quickstart
    grbench prune my_suite.yaml --results /shared/results --yes
    """
    from tabulate import tabulate

    from grbench.cache import cache_folder
    from grbench.registry.discovery import Registry
    from grbench.report.format import counted, size_text
    from grbench.results.cell_files import prunable, remove
    from grbench.run.tuned_methods import needed_records, plan_with_choices, trials_folder
    from grbench.suite.suite import load_suite

    registry = Registry.load(signature_cache=cache_folder())
    loaded = load_suite(suite, overrides)
    plan, tuned = plan_with_choices(loaded, loaded.cells(registry), registry, results)
    registry.save_signatures()
    keep = needed_records(plan, tuned)
    places = [
        (folder, each) for folder in (plan.folder, trials_folder(plan)) for each in prunable(folder, loaded.name, keep)
    ]
    found = [each for _, each in places]
    if not found:
        say(f"{plan.folder}: nothing to remove")
        return
    rows = []
    for each in found:
        record = each.record
        what = [_name(record), record.seed, record.status, record.finished] if record else ["", "", "no record", ""]
        if not each.digest:
            what = ["", "", "left by killed processes", ""]
        kinds = ", ".join(sorted({path.suffix.removeprefix(".") for path in each.files})) if each.digest else ""
        rows.append([*what, kinds, size_text(each.size), each.digest])
    headers = ["method", "seed", "status", "finished", "files", "size", "digest"]
    say(tabulate(rows, headers=headers, disable_numparse=True))
    total = size_text(sum(each.size for each in found))
    cells = counted(sum(bool(each.digest) for each in found), "cell")
    say(f"\n{cells} in {plan.folder} that {loaded.name} no longer has, {total}")
    if not yes:
        if not sys.stdin.isatty():
            raise RunError("nothing was removed: there is no terminal to ask at; --yes removes without asking")
        click.confirm("Remove them?", abort=True)
    busy = [each.digest for folder, each in places if not remove(folder, each)]
    say(f"removed {counted(len(found) - len(busy), 'entry').replace('entrys', 'entries')}")
    for digest in busy:
        say(f"left alone, because it runs just now: {digest}")


def _name(record: Record) -> str:
    return record.method if record.trial is None else f"{record.method}, trial {record.trial['number'] + 1}"
