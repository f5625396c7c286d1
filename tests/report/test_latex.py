"""LaTeX tables: what is typeset, and that a real LaTeX typesets it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from records import HIT, MISS, a_record, measured

from grbench.errors import RunError
from grbench.report.entries import ResultTable
from grbench.report.latex import LatexStyle, latex
from grbench.report.table import tables
from grbench.report.view import View

DOCUMENT = r"""
\documentclass[twocolumn]{article}
\usepackage{booktabs,graphicx,siunitx}
\begin{document}
\input{plain.tex}
\input{siunitx.tex}
See \ref{tab:one}.
\end{document}
"""


@pytest.fixture
def made(tmp_path: Path) -> list[ResultTable]:
    """Names with every sign that LaTeX obeys, marks, numbers of all sizes and a failed row."""
    base = measured(tmp_path, r"a_b & 50 % #1 {x} $y$ ~z^2 \end{table} <|> `q' \"r\"", [*HIT, *MISS], baseline="[c]")
    records = [*base, *measured(tmp_path, "[c]", [*HIT[1:], *MISS, 1.0], baseline="[c]", ranks=[1234.5] * 40)]
    reason = {"type": "ValueError", "message": "no such_thing, however long one looks for it #", "traceback": ""}
    return tables([*records, a_record("failed_" * 9, 0, baseline="[c]", error=reason)], View(caption="100 % & more_#"))


def test_marks_stay_and_notes_are_below_the_table(made: list[ResultTable]) -> None:
    text = latex(made, LatexStyle(label="tab:one"))
    assert text.startswith("% needs \\usepackage{booktabs,graphicx}\n")
    assert r"\caption{100 \% \& more\_\#}\label{tab:one}" in text
    assert r"\textbf{.5000} & $\pm$\,.1619" in text
    assert r"$^\circ$" in text
    assert r"{}[c] & " in text
    notes = text[text.index(r"\end{tabular}") :]
    assert text.index(r"\caption") < text.index("Dataset: toy") == text.index(r"\end{tabular}") + notes.index("Dataset")


def test_siunitx_aligns_what_is_a_number(made: list[ResultTable]) -> None:
    text = latex(made, LatexStyle("siunitx"))
    assert "booktabs,graphicx,siunitx" in text.partition("\n")[0]
    columns = text[text.index(r"\begin{tabular}") :].partition("\n")[0]
    assert r"S[table-format=1.4]@{\,}lS[table-format=4.4]" in columns
    assert r"\bfseries 0.5000 & $\pm$\,\num{0.1619}" in text
    assert "1234.5000" in text
    assert "1.40 M" in text  # not a number to siunitx: such a column is set as it is
    assert "{---}" in text


def test_long_reasons_are_wrapped(made: list[ResultTable]) -> None:
    text = latex(made)
    assert "p{16em}" in text
    assert r"{\raggedright error, seed 0: no such\_thing, however long one looks for it \#\par}" in text


def test_short_notes_leave_what_was_run_as_comments(made: list[ResultTable]) -> None:
    lines = latex(made, LatexStyle(notes="short")).splitlines()
    for note in ("Dataset: ", "Protocol: ", "Users: ", "Pool: ", "Hardware: "):
        assert any(line.startswith(f"% {note}") for line in lines)
        assert not any(line.startswith(note) for line in lines)
    assert any(line.startswith("Scores are means") for line in lines)


def test_a_page_and_several_tables() -> None:
    records = [a_record("a", 0, 0.1), a_record("b", 0, 0.1, protocol={"name": "other"})]
    text = latex(tables(records), LatexStyle(fit="page", label="tab:x"))
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 2
    assert r"\label{tab:x-1}" in text
    assert r"\label{tab:x-2}" in text


@pytest.mark.parametrize("label", ["", "a b", "x}", "\\input"])
def test_labels_that_latex_would_not_take_are_refused(label: str) -> None:
    with pytest.raises(RunError, match="--label"):
        LatexStyle(label=label)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_typesets_them_within_the_column(made: list[ResultTable], tmp_path: Path) -> None:
    (tmp_path / "plain.tex").write_text(latex(made, LatexStyle(label="tab:one")), encoding="utf-8")
    (tmp_path / "siunitx.tex").write_text(latex(made, LatexStyle("siunitx", notes="short")), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(DOCUMENT)
    command: list[Any] = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    if "siunitx.sty' not found" in done.stdout:
        pytest.skip("needs LaTeX's package siunitx")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
    if shutil.which("pdftotext"):
        read = subprocess.run(["pdftotext", "-layout", "paper.pdf", "-"], cwd=tmp_path, capture_output=True, check=True)
        text = read.stdout.decode()
        assert "100 % & more #" in text.replace("_", " ")
        assert "1,234.5000" in text
        assert text.count("error, seed 0: no") == 2
