"""Terminal output of the commands: console, titled tables, progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from grbench.output import printable
from grbench.types import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from grbench.data.store import Store


def make_console() -> Console:
    """A console on stdout."""
    from rich.console import Console

    console = Console()
    # Without a terminal rich assumes 80 columns, too narrow for the tables.
    return console if console.is_terminal else Console(width=160)


def print_table(console: Console, title: str, table: Table) -> None:
    """A table under its title. Rich's own titles are wrapped to the width of the table."""
    console.print(f"[bold]{plain(title)}[/]", highlight=False, soft_wrap=True)
    console.print(table)


def print_remarks(console: Console, store: Store) -> None:
    """A line for each of the store's remarks."""
    for remark in store.remarks:
        console.print(f"note: {printable(remark)}", markup=False, highlight=False, soft_wrap=True, emoji=False)


def plain(text: str) -> str:
    """`text` with rich's markup and what a terminal would obey escaped."""
    from rich.markup import escape

    return escape(printable(text))


@contextmanager
def progress_report(console: Console, *, in_bytes: bool = False) -> Iterator[Progress]:
    """Progress bars with the remaining time on a terminal; elsewhere one line for each part that is finished."""
    if not console.is_terminal:
        yield _line_report(console)
        return
    from rich import progress

    counts: tuple[progress.ProgressColumn, ...] = (progress.MofNCompleteColumn(),)
    if in_bytes:
        counts = (progress.DownloadColumn(), progress.TransferSpeedColumn())
    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        *counts,
        progress.TimeRemainingColumn(),
        console=console,
    ) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def report(part: str, done: int, total: int | None) -> None:
            if part not in tasks:
                tasks[part] = bars.add_task(printable(part), total=total)
            bars.update(tasks[part], completed=done, total=total)

        yield report


def _line_report(console: Console) -> Progress:
    finished: set[str] = set()

    def report(part: str, done: int, total: int | None) -> None:
        if total is not None and done >= total and part not in finished:
            finished.add(part)
            console.print(f"{printable(part)}: {done:,}", markup=False, highlight=False, emoji=False)

    return report
