"""Result tables as a picture (SVG) of what a terminal shows."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence

from grbench.report.entries import ResultTable
from grbench.report.terminal import FILE_WIDTH, print_tables

_TEXT = re.compile(
    r'<text class="(?P<style>[^"]+)" x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)" textLength="(?P<width>[\d.]+)" '
    r'(?P<clip>clip-path="[^"]+")>(?P<text>[^<]*)</text>'
)


def svg(tables: Sequence[ResultTable]) -> str:
    """An SVG picture of the terminal output."""
    from rich.console import Console
    from rich.terminal_theme import DEFAULT_TERMINAL_THEME

    console = Console(record=True, force_terminal=True, width=FILE_WIDTH, file=io.StringIO())
    print_tables(tables, console)
    picture = console.export_svg(title="grbench", theme=DEFAULT_TERMINAL_THEME)
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)  # a web font would not load offline
    return _TEXT.sub(_phrases, picture)


def _phrases(element: re.Match[str]) -> str:
    """A text element as one for each part between wider gaps, at the part's own place: renderers that do not know
    `textLength`, or that drop spaces at a text's ends, would move what follows."""
    from rich.cells import cell_len

    text = html.unescape(element["text"])
    left, cell = float(element["x"]), float(element["width"]) / max(cell_len(text), 1)
    parts = []
    for phrase in re.finditer(r"\S+(?:\s\S+)*", text):
        place = f'x="{left + cell * cell_len(text[: phrase.start()]):.1f}" y="{element["y"]}"'
        width = f'textLength="{cell * cell_len(phrase[0]):.1f}"'
        shown = html.escape(phrase[0]).replace("\N{NO-BREAK SPACE}", "&#160;")
        parts.append(f'<text class="{element["style"]}" {place} {width} {element["clip"]}>{shown}</text>')
    return "".join(parts)
