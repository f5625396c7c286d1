"""Result tables as a terminal shows them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from grbench.report.entries import ResultTable
from grbench.report.markdown import markdown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

FILE_WIDTH = 160
"""Characters of a line in a text file or a picture."""

GAP = 3
"""Characters between two columns of a terminal table."""
WRAPPED_WIDTH = 40
"""Characters after which text that is not numeric is wrapped in a terminal table."""


def print_tables(tables: Sequence[ResultTable], console: Console) -> None:
    """Prints the tables: with styles on a terminal, as Markdown where the output goes to a file or a pipe."""
    if not console.is_terminal:
        console.file.write(markdown(tables))
        return
    for table in tables:
        console.print(f"\n{table.heading}", style="bold", markup=False, highlight=False, emoji=False)
        for columns in _fitting(table, console.width):
            console.print(_grid(table, columns))
        for line in table.footer:
            console.print(line, style="dim", markup=False, highlight=False, emoji=False)


def plain_text(tables: Sequence[ResultTable]) -> str:
    """What a terminal shows, without styles."""
    from rich.console import Console

    text = io.StringIO()
    print_tables(tables, Console(force_terminal=True, color_system=None, width=FILE_WIDTH, file=text))
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").split("\n")) + "\n"


def _fitting(table: ResultTable, width: int) -> list[list[int]]:
    """Distributes the columns over blocks that fit into `width` characters; every block begins with the method."""

    def needed(index: int) -> int:
        entries = (row[index] for row in table.rows)
        texts = [
            table.columns[index].title,
            *(cell.text + " ± " * bool(cell.spread) + cell.spread + cell.mark for cell in entries),
        ]
        longest = max(map(len, texts))
        return GAP + (longest if table.columns[index].numeric else min(longest, WRAPPED_WIDTH))

    blocks, free = [[0]], width - needed(0)
    for index in range(1, len(table.columns)):
        if needed(index) > free and len(blocks[-1]) > 1:
            blocks.append([0])
            free = width - needed(0)
        blocks[-1].append(index)
        free -= needed(index)
    return blocks


def _grid(table: ResultTable, chosen: Sequence[int]) -> RenderableType:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    entries = []
    for index in chosen:
        cells = [row[index] for row in table.rows]
        numeric = table.columns[index].numeric
        # Means are aligned below each other, with an interval or without.
        spread = max(len(cell.spread + cell.mark) for cell in cells)
        intervals = [
            ((f" ± {cell.spread}" if cell.spread else "") + cell.mark).ljust(3 + spread) if spread else ""
            for cell in cells
        ]
        width = max(len(cell.text) for cell in cells)
        title = table.columns[index].title
        grid.add_column(Text(title.rjust(width + len(intervals[0])) if spread else title), no_wrap=numeric)
        grid.columns[-1].justify = "right" if numeric and not spread else "left"
        entries.append(
            [
                Text.assemble(
                    " " * (width - len(cell.text)) * bool(spread), (cell.text, "bold" if cell.best else ""), after
                )
                for cell, after in zip(cells, intervals, strict=True)
            ]
        )
    for row in zip(*entries, strict=True):
        grid.add_row(*row)
    return grid
