"""Tables as text (terminal, Markdown, LaTeX, CSV) or as a picture (SVG). What stands in them: `table.py`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from grbench.report.table import ResultTable, TableEntry

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

FORMATS = ("terminal", "md", "latex", "csv", "svg")
PICTURE_WIDTH = 150

GAP = 3
WRAPPED_WIDTH = 40
"""Columns between two entries of a terminal table; how wide an entry of words may grow before it is wrapped."""

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
}


def print_tables(tables: Sequence[ResultTable], console: Console) -> None:
    """Styled on a terminal; Markdown where the output goes to a file or a pipe, which reads well in both."""
    if not console.is_terminal:
        console.file.write(markdown(tables))
        return
    for table in tables:
        console.print(f"\n{table.heading}", style="bold", markup=False, highlight=False)
        for columns in _fitting(table, console.width):
            console.print(_grid(table, columns))
        for line in table.footer:
            console.print(line, style="dim", markup=False, highlight=False)


def render(tables: Sequence[ResultTable], form: str) -> str:
    """The tables in one of the formats; `terminal` comes without styles where it is asked for as text."""
    return {"terminal": markdown, "md": markdown, "latex": latex, "csv": as_csv, "svg": svg}[form](tables)


def markdown(tables: Sequence[ResultTable]) -> str:
    """One pipe table each, aligned so that it can be read as it is; best in **bold**, second <u>underlined</u>."""
    from tabulate import tabulate

    def mark(cell: TableEntry) -> str:
        text = _markdown_escaped(cell.text)
        text = {"best": f"**{text}**", "second": f"<u>{text}</u>", "": text}[cell.mark]
        return f"{text} ± {cell.spread}" if cell.spread else text

    parts = []
    for table in tables:
        grid = tabulate(
            [[mark(cell) for cell in row] for row in table.rows],
            headers=[_markdown_escaped(column.title) for column in table.columns],
            tablefmt="pipe",
            colalign=["right" if column.numeric else "left" for column in table.columns],
            disable_numparse=True,
        )
        notes = "\n".join(f"- {_markdown_escaped(line)}" for line in table.footer)
        parts.append(f"### {_markdown_escaped(table.heading)}\n\n{grid}\n\n{notes}\n")
    return "\n".join(parts)


def svg(tables: Sequence[ResultTable]) -> str:
    """A picture of what a terminal shows, for a README or a slide."""
    from rich.console import Console
    from rich.terminal_theme import DEFAULT_TERMINAL_THEME

    console = Console(record=True, force_terminal=True, width=PICTURE_WIDTH, file=io.StringIO())
    print_tables(tables, console)
    picture = console.export_svg(title="grbench", theme=DEFAULT_TERMINAL_THEME)
    return re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)  # a web font would not load offline


def latex(tables: Sequence[ResultTable]) -> str:
    r"""A `table` environment each, to be \input; needs \usepackage{booktabs}."""
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
    """Unrounded numbers, one line a row; `table` tells apart what cannot be compared, the footer stands in `notes`."""
    names = dict.fromkeys(name for table in tables for row in table.values for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, ["table", *names, "notes"], lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.values:
            writer.writerow({"table": table.heading, **row, "notes": " | ".join(table.footer)})
    return text.getvalue()


def _fitting(table: ResultTable, width: int) -> list[list[int]]:
    """Which columns go into which block, so that no number is cut off; every block begins with the method."""

    def needed(at: int) -> int:
        cells = [table.columns[at].title, *(cell.text + " ± " * bool(cell.spread) + cell.spread for cell in column(at))]
        longest = max(map(len, cells))
        return GAP + (longest if table.columns[at].numeric else min(longest, WRAPPED_WIDTH))

    def column(at: int) -> list[TableEntry]:
        return [row[at] for row in table.rows]

    blocks, free = [[0]], width - needed(0)
    for at in range(1, len(table.columns)):
        if needed(at) > free and len(blocks[-1]) > 1:
            blocks.append([0])
            free = width - needed(0)
        blocks[-1].append(at)
        free -= needed(at)
    return blocks


def _grid(table: ResultTable, chosen: Sequence[int]) -> RenderableType:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    styles = {"best": "bold", "second": "underline", "": ""}
    entries = []
    for at in chosen:
        cells = [row[at] for row in table.rows]
        numeric = table.columns[at].numeric
        # Means stand below each other, whether an interval follows or not.
        spread = max(len(cell.spread) for cell in cells)
        beside = [(f" ± {cell.spread}" if cell.spread else "").ljust(3 + spread) if spread else "" for cell in cells]
        width = max(len(cell.text) for cell in cells)
        title = table.columns[at].title
        grid.add_column(Text(title.rjust(width + len(beside[0])) if spread else title), no_wrap=numeric)
        grid.columns[-1].justify = "right" if numeric and not spread else "left"
        entries.append(
            [
                Text.assemble(" " * (width - len(cell.text)) * bool(spread), (cell.text, styles[cell.mark]), after)
                for cell, after in zip(cells, beside, strict=True)
            ]
        )
    for row in zip(*entries, strict=True):
        grid.add_row(*row)
    return grid


def _latex_cell(cell: TableEntry) -> str:
    text = _latex_escaped(cell.text)
    text = {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}", "": text}[cell.mark]
    return rf"{text} $\pm$ {_latex_escaped(cell.spread)}" if cell.spread else text


def _latex_escaped(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _markdown_escaped(text: str) -> str:
    return text.translate({ord(letter): "\\" + letter for letter in "\\|<>`*"})
