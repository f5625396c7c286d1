"""A table in each format: what is escaped, aligned and marked."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from records import HIT, MISS, a_record, measured
from rich.console import Console

from grbench.report.render import as_csv, latex, markdown, print_tables, svg
from grbench.report.table import tables


@pytest.fixture
def tricky(tmp_path: Path) -> list[Any]:
    """Names with signs that formats give a meaning, an interval of .1157, and a failed row."""
    records = measured(tmp_path, "a_b & 50 %", [*HIT[:6], *MISS, *MISS[6:]], [*HIT[:6], *MISS, *MISS[6:]])
    records += measured(tmp_path, "x|y", [*HIT[:12], *MISS[12:], *MISS])
    return tables([*records, a_record("f", 0)])


def test_markdown_marks_escapes_and_aligns(tricky: list[Any]) -> None:
    text = markdown(tricky)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in rows}) == 1
    assert "**.3000**" in text
    assert ".1500 ± .1157" in text
    assert r"x\|y" in text


def test_latex_is_escaped_and_uses_booktabs(tricky: list[Any]) -> None:
    text = latex(tricky)
    assert r"a\_b \& 50 \%" in text
    assert r"\textbf{.3000}" in text
    assert r".1500 & $\pm$\,.1157" in text
    assert r"HR@10 $\uparrow$" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1
    assert not set(text) & set("±↑↓—°")
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:-1]
    columns = re.sub(r"@\{.*?\}", "", text.partition(r"\begin{tabular}{")[2].partition("\n")[0].removesuffix("}"))
    assert {line.replace(r"\&", "").count("&") + 1 for line in body} == {len(columns)}


def test_csv_holds_unrounded_numbers(tricky: list[Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(tricky))))
    assert [row["method"] for row in rows] == ["a_b & 50 %", "x|y", "f"]
    assert float(rows[0]["hit_rate@10"]) == pytest.approx(0.15)
    assert rows[2]["hit_rate@10"] == ""
    assert (rows[2]["seeds"], rows[2]["seeds_planned"]) == ("0", "1")


@pytest.mark.parametrize("width", [200, 80])
def test_the_terminal_shows_every_number_whole(width: int, tricky: list[Any]) -> None:
    out = io.StringIO()
    print_tables(tricky, Console(file=out, force_terminal=True, width=width, color_system="standard"))
    shown = out.getvalue()
    for entry in (".1500", ".1157", ".3000", "1,520", "1.40 M", "no such thing"):
        assert entry in shown
    assert "\x1b[1m.3000" in shown


def test_a_picture_shows_what_the_terminal_does(tricky: list[Any]) -> None:
    root = ElementTree.fromstring(svg(tricky))
    words = " ".join("".join(root.itertext()).replace("\xa0", " ").split())
    assert "a_b & 50 %" in words
    assert ".1500 ± .1157" in words


def test_a_pipe_gets_no_control_characters(tricky: list[Any]) -> None:
    out = io.StringIO()
    print_tables(tricky, Console(file=out, force_terminal=False))
    assert "\x1b" not in out.getvalue()
    assert out.getvalue() == markdown(tricky)
