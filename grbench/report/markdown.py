"""Result tables as Markdown that GitHub renders, without HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence

from grbench.report.entries import ResultTable, TableEntry


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


def _markdown_escaped(text: str) -> str:
    """The text without the signs of Markdown, GitHub's formulas included: an underscore, a link's bracket and an
    entity's sign only where they would be one, because all of them are in the names of methods."""
    escaped = text.translate({ord(letter): "\\" + letter for letter in "\\|<>`*~$"})
    return re.sub(r"(?<=\])(?=[(\[])|(?=&#?\w)|(?<![^\W_])(?=_)|(?=_(?![^\W_]))", r"\\", escaped)
