"""Writing figures: whole files or none, the same bytes for the same records."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench.errors import RunError
from grbench.report.plots.style import FONT
from grbench.results.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = {".pdf": "PDF, for LaTeX", ".png": "PNG, 300 dots an inch", ".svg": "SVG, its text as outlines"}
_NO_GLYPH = re.compile(r"Glyph (\d+) ")
"""How matplotlib's warning of a character that a font lacks begins."""
_NO_TIME: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".png": {}, ".svg": {"Date": None}}


def check_suffix(path: Path) -> None:
    """Raises RunError where the suffix stands for no kind of file that figures are written as."""
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(f"{suffix} ({what})" for suffix, what in SUFFIXES.items())
        given = f"are not written as {path.suffix}" if path.suffix else "need a suffix"
        raise RunError(f"{path}: pictures {given}; there are: {known}")


def write_figure(figure: Figure, path: Path) -> list[str]:
    """Writes the figure in the format of the file's suffix; returns notes on characters that its font lacks. Raises
    RunError where the file cannot be written; what was there before is then unchanged."""
    suffix, content = path.suffix.lower(), io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(content, format=suffix[1:], metadata=_NO_TIME[suffix])
    if path.is_dir():
        raise RunError(f"{path}: cannot be written (it is a folder)")
    write_atomically(path, lambda file: file.write(content.getbuffer()))
    messages = dict.fromkeys(str(each.message) for each in caught)
    lacking = dict.fromkeys(chr(int(found[1])) for text in messages if (found := _NO_GLYPH.match(text)))
    notes = [text.partition("\n")[0] for text in messages if not _NO_GLYPH.match(text)]
    return notes + [f"The font of pictures, {FONT}, has no {' '.join(lacking)}: --rows renames rows"] * bool(lacking)
