"""Formatting result tables as text (terminal, Markdown, LaTeX, CSV) or as a picture (SVG)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grbench.errors import RunError
from grbench.report.entries import ResultTable
from grbench.report.latex import PLAIN, LatexStyle, latex
from grbench.report.markdown import markdown
from grbench.report.picture import svg
from grbench.report.spreadsheet import as_csv
from grbench.report.terminal import plain_text, print_tables

__all__ = ["FORMATS", "as_csv", "format_of_file", "latex", "markdown", "plain_text", "print_tables", "render", "svg"]

FORMATS = ("terminal", "md", "latex", "csv", "svg")
FORMAT_OF_SUFFIX = {".txt": "terminal", ".md": "md", ".tex": "latex", ".csv": "csv", ".svg": "svg"}


def render(tables: Sequence[ResultTable], form: str, style: LatexStyle = PLAIN) -> str:
    """The tables as text. form: one of FORMATS; style: of LaTeX."""
    if form == "latex":
        return latex(tables, style)
    return {"terminal": plain_text, "md": markdown, "csv": as_csv, "svg": svg}[form](tables)


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
