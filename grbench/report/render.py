"""Formatting result tables as text (terminal, Markdown, LaTeX, CSV) or as a picture (SVG)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench.errors import RunError
from grbench.report.entries import ResultTable, TableEntry

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

FORMATS = ("terminal", "md", "latex", "csv", "svg")
FORMAT_OF_SUFFIX = {".txt": "terminal", ".md": "md", ".tex": "latex", ".csv": "csv", ".svg": "svg"}
FILE_WIDTH = 160
"""Characters of a line in a text file or a picture."""

GAP = 3
"""Characters between two columns of a terminal table."""
WRAPPED_WIDTH = 40
"""Characters after which text that is not numeric is wrapped in a terminal table."""

_FORMULA = ("=", "+", "-", "@")
"""What a formula of a spreadsheet begins with."""

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "—": "---",
    "→": r"$\rightarrow$",
    "°": r"$^\circ$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "‖": r"$\parallel$",
}


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


def render(tables: Sequence[ResultTable], form: str) -> str:
    """The tables as text. form: one of FORMATS."""
    return {"terminal": plain_text, "md": markdown, "latex": latex, "csv": as_csv, "svg": svg}[form](tables)


def format_of_file(path: Path, form: str | None) -> str:
    """The format to write to `path`: the one that its suffix stands for, or `form` where it has no suffix.

    Raises RunError where the suffix stands for no format or for another than `form`.
    """
    by_suffix = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    known = ", ".join(f"{suffix} ({name})" for suffix, name in FORMAT_OF_SUFFIX.items())
    if path.suffix and by_suffix is None:
        raise RunError(f"{path}: tables are not written as {path.suffix}; known suffixes are {known}")
    if form and by_suffix and form != by_suffix:
        raise RunError(f"{path}: --format {form} does not go with the suffix, which stands for {by_suffix}")
    if not (chosen := form or by_suffix):
        raise RunError(f"{path}: has no suffix to choose a format by; give --format, or one of {known}")
    return chosen


def plain_text(tables: Sequence[ResultTable]) -> str:
    """What a terminal shows, without styles."""
    from rich.console import Console

    text = io.StringIO()
    print_tables(tables, Console(force_terminal=True, color_system=None, width=FILE_WIDTH, file=text))
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").split("\n")) + "\n"


def markdown(tables: Sequence[ResultTable]) -> str:
    """Markdown pipe tables with aligned columns; the best scores in **bold**."""
    from tabulate import tabulate

    def highlighted(cell: TableEntry) -> str:
        text = _markdown_escaped(cell.text)
        text = f"**{text}**" if cell.best else text
        return (f"{text} ± {cell.spread}" if cell.spread else text) + cell.mark

    parts = []
    for table in tables:
        grid = tabulate(
            [[highlighted(cell) for cell in row] for row in table.rows],
            headers=[_markdown_escaped(column.title) for column in table.columns],
            tablefmt="pipe",
            colalign=["right" if column.numeric else "left" for column in table.columns],
            disable_numparse=True,
        )
        notes = "\n".join(f"- {_markdown_escaped(line)}" for line in table.footer)
        parts.append(f"### {_markdown_escaped(table.heading)}\n\n{grid}\n\n{notes}\n")
    return "\n".join(parts)


def svg(tables: Sequence[ResultTable]) -> str:
    """An SVG picture of the terminal output."""
    from rich.console import Console
    from rich.terminal_theme import DEFAULT_TERMINAL_THEME

    console = Console(record=True, force_terminal=True, width=FILE_WIDTH, file=io.StringIO())
    print_tables(tables, console)
    picture = console.export_svg(title="grbench", theme=DEFAULT_TERMINAL_THEME)
    return re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)  # a web font would not load offline


def latex(tables: Sequence[ResultTable]) -> str:
    r"""LaTeX `table` environments for \input; they need \usepackage{booktabs}."""
    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        spec = "".join("r" if column.numeric else "l" for column in table.columns)
        heads = " & ".join(_latex_escaped(column.title) for column in table.columns)
        lines = [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in table.rows]
        notes = " ".join(_latex_escaped(line) + (" " if line.endswith(".") else ". ") for line in table.footer).strip()
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{_latex_escaped(table.heading)}. {notes}}}",
                    rf"\begin{{tabular}}{{{spec}}}",
                    r"\toprule",
                    heads + r" \\",
                    r"\midrule",
                    *lines,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def as_csv(tables: Sequence[ResultTable]) -> str:
    """CSV with unrounded numbers, one line per row. Column `table` is the heading of the row's table, `notes` its
    footer."""
    names = dict.fromkeys(name for table in tables for row in table.values for name in row)
    text = io.StringIO()
    columns = ["table", *names, "notes"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writerow({name: _csv_escaped(name) for name in columns})
    for table in tables:
        for row in table.values:
            values = {"table": table.heading, **row, "notes": " | ".join(table.footer)}
            writer.writerow({name: _csv_escaped(value) for name, value in values.items()})
    return text.getvalue()


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


def _latex_cell(cell: TableEntry) -> str:
    text = _latex_escaped(cell.text)
    if cell.text[:1] in ("[", "*"):  # after the \\ of the row before, it would be an option of that
        text = f"{{}}{text}"
    text = rf"\textbf{{{text}}}" if cell.best else text
    return (rf"{text} $\pm$ {_latex_escaped(cell.spread)}" if cell.spread else text) + _latex_escaped(cell.mark)


def _latex_escaped(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _markdown_escaped(text: str) -> str:
    """The text without the signs of Markdown: a link's and an entity's only where they would be one, because brackets
    are in the names of grids."""
    escaped = text.translate({ord(letter): "\\" + letter for letter in "\\|<>`*~"})
    return re.sub(r"(?<=\])(?=[(\[])|(?=&#?\w)", r"\\", escaped)


def _csv_escaped(value: Any) -> Any:
    """A text that a spreadsheet would compute as a formula, with the apostrophe that makes it text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA else value
