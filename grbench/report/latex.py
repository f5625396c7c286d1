r"""Result tables as LaTeX, to be read with \input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grbench.errors import RunError, cut
from grbench.report.entries import Column, ResultTable, TableEntry
from grbench.report.footer import is_setting

ESCAPES = {
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
    "`": r"\textasciigrave{}",
    '"': "''",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "—": "---",
    "…": r"\ldots{}",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "·": r"$\cdot$",
    "°": r"$^\circ$",
    "\N{NO-BREAK SPACE}": "~",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "‖": r"$\parallel$",
}

WRAPPED = 30
"""Characters after which text in a column that is not the first is wrapped."""

_NUMBER = re.compile(r"(?P<sign>-?)(?=\.?\d)(?P<whole>\d*)(?:\.(?P<decimals>\d+))?")

# In the font of formulas, bold too.
_SIUNITX = (
    r"\sisetup{mode=math,text-series-to-math=true,group-digits=integer,group-minimum-digits=4,group-separator={,}}"
)


@dataclass(frozen=True)
class LatexStyle:
    r"""numbers: `siunitx` aligns numbers by their points, `plain` needs no package for that; fit: a table is at most as
    wide as a column of the text or, of a text in two columns, as the page; notes: below the table, `short` leaves those
    that a paper's text has in the file as comments; label: for \ref, None for none."""

    numbers: Literal["plain", "siunitx"] = "plain"
    fit: Literal["column", "page"] = "column"
    notes: Literal["all", "short"] = "all"
    label: str | None = None

    def __post_init__(self) -> None:
        if self.label is not None and not re.fullmatch(r"[A-Za-z0-9:.+/-]+", self.label):
            raise RunError(f"--label {cut(repr(self.label))}: a label has letters, digits and : . + / - only")


PLAIN = LatexStyle()


def latex(tables: Sequence[ResultTable], style: LatexStyle = PLAIN) -> str:
    r"""LaTeX `table` environments for \input; the first line names the packages that they need."""
    packages = "booktabs,graphicx" + ",siunitx" * (style.numbers == "siunitx")
    version = "; siunitx of version 3 (2021) or newer" * (style.numbers == "siunitx")
    parts = [f"% needs \\usepackage{{{packages}}}{version}"]
    for position, table in enumerate(tables, 1):
        label = style.label and (style.label if len(tables) == 1 else f"{style.label}-{position}")
        parts.append(_table(table, style, label))
    return "\n\n".join(parts) + "\n"


def _table(table: ResultTable, style: LatexStyle, label: str | None) -> str:
    environment, width = ("table*", r"\textwidth") if style.fit == "page" else ("table", r"\linewidth")
    columns = [
        _column(column, [row[place] for row in table.rows], style, first=place == 0)
        for place, column in enumerate(table.columns)
    ]
    rows = [" & ".join(column.cells[row] for column in columns) + r" \\" for row in range(len(table.rows))]
    return "\n".join(
        [
            rf"\begin{{{environment}}}",
            r"\centering",
            rf"\caption{{{escaped(table.heading)}}}" + (rf"\label{{{label}}}" if label else ""),
            r"\smallskip",
            r"\small",
            r"\setlength{\tabcolsep}{4pt}",
            *([_SIUNITX] if style.numbers == "siunitx" else []),
            "% A table that is too wide is made smaller.",
            r"\sbox0{%",
            rf"\begin{{tabular}}{{@{{}}{''.join(column.spec for column in columns)}@{{}}}}",
            r"\toprule",
            " & ".join(column.head for column in columns) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}%",
            rf"\resizebox{{\ifdim\wd0>{width} {width}\else\wd0\fi}}{{!}}{{\usebox0}}",
            *(_notes(table.footer, width, style.notes) if table.footer else []),
            rf"\end{{{environment}}}",
        ]
    )


def _notes(footer: Sequence[str], width: str, which: Literal["all", "short"]) -> list[str]:
    """The footer below the table, one line of the file for each note, so that any can be taken out."""
    lines = [
        "% " * (which == "short" and is_setting(note))
        + escaped(note.replace(" %", "\N{NO-BREAK SPACE}%"))
        + ("" if note.endswith(".") else ".")
        for note in footer
    ]
    return [
        r"\par\smallskip",
        rf"\begin{{minipage}}{{{width}}}",
        r"\footnotesize\raggedright",
        *lines,
        r"\end{minipage}",
    ]


@dataclass(frozen=True)
class _LatexColumn:
    """spec: for the argument of tabular; head: the heading; cells: one for each row. An interval stands in a column of
    its own, so that ± is below ±."""

    spec: str
    head: str
    cells: list[str]


def _column(column: Column, entries: Sequence[TableEntry], style: LatexStyle, *, first: bool) -> _LatexColumn:
    title = escaped(column.title)
    if not column.numeric:
        wide = not first and max((len(entry.text) for entry in entries), default=0) > WRAPPED
        spec = "p{16em}" if wide else "l"
        return _LatexColumn(spec, title, [_text(entry, wrapped=wide) for entry in entries])
    number_format = _number_format(entries) if style.numbers == "siunitx" else None
    spec = f"S[table-format={number_format}]" if number_format else "r"
    if any(entry.spread for entry in entries):
        cells = [f"{_number(entry, number_format)} & {_interval(entry, number_format)}" for entry in entries]
        return _LatexColumn(spec + r"@{\,}l", rf"\multicolumn{{2}}{{c}}{{{title}}}", cells)
    cells = [_number(entry, number_format) + _beside(entry) for entry in entries]
    return _LatexColumn(spec, f"{{{title}}}", cells)


def _number(entry: TableEntry, number_format: str | None) -> str:
    if number_format and _parts(entry):
        text = _with_zero(entry.text)
        return rf"\bfseries {text}" if entry.best else text
    text = _at_start(escaped(entry.text))
    text = rf"\textbf{{{text}}}" if entry.best else text
    return f"{{{text}}}" if number_format else text


def _interval(entry: TableEntry, number_format: str | None) -> str:
    if number_format and entry.spread:
        return rf"$\pm$\,\num{{{_with_zero(entry.spread)}}}{escaped(entry.mark)}"
    return (rf"$\pm$\,{escaped(entry.spread)}" if entry.spread else "") + escaped(entry.mark)


def _beside(entry: TableEntry) -> str:
    """A mark that takes no room, so that numbers stay below each other."""
    return rf"\rlap{{{escaped(entry.mark)}}}" if entry.mark else ""


def _text(entry: TableEntry, *, wrapped: bool) -> str:
    text = _at_start(escaped(entry.text)) + escaped(entry.mark)
    text = rf"\textbf{{{text}}}" if entry.best else text
    return rf"{{\raggedright {text}\par}}" if wrapped else text


def _number_format(entries: Sequence[TableEntry]) -> str | None:
    """siunitx's `table-format` for the entries; None where one is neither a number nor a single sign."""
    found = [_parts(entry) for entry in entries]
    if any(parts is None and len(entry.text) > 1 for parts, entry in zip(found, entries, strict=True)):
        return None
    numbers = [parts for parts in found if parts is not None]
    if not numbers:
        return None
    sign = "-" if any(parts["sign"] for parts in numbers) else ""
    whole, decimals = (max(len(parts[key] or "") for parts in numbers) for key in ("whole", "decimals"))
    return f"{sign}{max(whole, 1)}.{decimals}"


def _parts(entry: TableEntry) -> re.Match[str] | None:
    """The sign and the digits of an entry that is a number."""
    return _NUMBER.fullmatch(entry.text.replace(",", ""))


def _with_zero(text: str) -> str:
    """A number as siunitx reads it: without separators, with a digit before the point."""
    return re.sub(r"^(-?)\.", r"\g<1>0.", text.replace(",", ""))


def _at_start(text: str) -> str:
    r"""After the \\ of the row before, [ and * would be an option of that."""
    return f"{{}}{text}" if text[:1] in ("[", "*") else text


def escaped(text: str) -> str:
    """The text without the signs that LaTeX obeys."""
    return "".join(ESCAPES.get(letter, letter) for letter in text)
