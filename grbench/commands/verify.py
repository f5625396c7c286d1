"""`grbench verify`: checks results, and runs some cells again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grbench.commands import complete
from grbench.commands.options import overrides_option
from grbench.commands.streams import complain, say
from grbench.errors import RunError

if TYPE_CHECKING:
    from grbench.results.verify import Verified


@click.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--rerun", "number", type=click.IntRange(min=1), metavar="N", help="Run N cells again and compare.")
@click.option(
    "--suite",
    metavar="SUITE",
    shell_complete=complete.suites,
    help="The records' suite, a file or name  [default: the name they say]",
)
@overrides_option
@click.option(
    "--choice", "seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of what is rerun."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, max=1),
    default=0.05,
    show_default=True,
    help="Share by which scores may differ when run again on other hardware, threads or versions.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), metavar="DIR", help="Folder for stores.")
@click.pass_context
def verify(
    context: click.Context, /, results: tuple[Path, ...], number: int | None, suite: str | None, **options: Any
) -> None:
    """Check records in folders of results or single record files: schema, checksums, digests, scores against the users'
    values, and ranks against the lists.

    With --suite, metrics are also computed again from the lists, where the data are prepared on this machine. With
    --rerun, N cells are run again in a temporary folder: where hardware, threads and versions are those of the record,
    scores and lists must be equal to the last digit, elsewhere scores within --tolerance.

    Exit status: 0 all is right, 1 something differs, 2 the request cannot be met.

    \b
    grbench verify results/quickstart
    grbench verify results/quickstart --suite quickstart --rerun 2
    """
    from rich.console import Console
    from rich.progress import track

    from grbench.report.format import counted
    from grbench.results.record_files import record_files
    from grbench.results.verify import verify_record

    files, strays = record_files(results)
    for stray in strays:
        complain(f"note: left out, because not a record of grbench: {stray}")
    if not files:
        raise RunError(f"{', '.join(map(str, results))}: there are no records; grbench run SUITE writes them")
    bars = Console(stderr=True)
    checked = [verify_record(file) for file in track(files, "checking", console=bars, transient=True)]
    if suite is not None or number is not None:
        _with_suite(checked, suite or _only_suite(checked), number, options)
    say(_table(checked))
    notes = list(dict.fromkeys(note for each in checked for note in each.notes))
    for note in notes[:20]:
        say(f"note: {note}")
    problems = [problem for each in checked for problem in each.problems]
    for problem in problems:
        say(problem)
    wrong = sum(bool(each.problems) for each in checked)
    good = "all are right" if not wrong else f"{wrong} {'is' if wrong == 1 else 'are'} not right"
    say(f"{counted(len(checked), 'record')} checked: {good}")
    context.exit(1 if problems else 0)


def _only_suite(checked: Sequence[Verified]) -> str:
    names = sorted({each.record.suite for each in checked if each.record is not None})
    if len(names) != 1:
        raise RunError(f"--rerun: say with --suite which suite to run; the records are of {', '.join(names) or 'none'}")
    return names[0]


def _with_suite(checked: Sequence[Verified], suite: str, number: int | None, options: dict[str, Any]) -> None:
    """Adds the checks `metrics` and `rerun`."""
    from rich.console import Console
    from rich.progress import track

    from grbench.run.rerun import RerunRequest, SuiteCells

    read = [each.record for each in checked if each.record is not None]
    cells = SuiteCells(RerunRequest(suite, number=number or 0, **options), read)
    mine = {each.record.digest: each for each in checked if each.record is not None and each.record in cells}
    right = [each for each in mine.values() if not each.problems and "scores" in each.found]
    if not mine:
        checked[0].notes.append(f"none of the records is of a cell of {suite} as it is now")
    elif (reason := cells.prepare()) is not None:
        checked[0].notes.append(reason)
    else:
        for each in track(right, "computing metrics", console=Console(stderr=True), transient=True):
            if each.record is not None:
                each.found["metrics"] = cells.score_problems(each.record)
    if number is not None:
        records = [each.record for each in mine.values() if each.record is not None and not each.problems]
        for digest, problems in cells.rerun(records, Console()).items():
            mine[digest].found["rerun"] = problems


def _table(checked: Sequence[Verified]) -> str:
    from tabulate import tabulate

    from grbench.results.verify import CHECKS

    shown = [*CHECKS, *[name for name in ("metrics", "rerun") if any(name in each.found for each in checked)]]
    rows = []
    for each in checked:
        states = ["—" if name not in each.found else "differs" if each.found[name] else "ok" for name in shown]
        record = each.record
        cell = ["", "", each.path.stem] if record is None else [record.method, record.seed, record.digest]
        status = "" if record is None else record.status
        rows.append([cell[0], cell[1], status, *states, cell[2]])
    return "\n" + tabulate(rows, headers=["method", "seed", "status", *shown, "digest"], disable_numparse=True) + "\n"
