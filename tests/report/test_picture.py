"""A picture has every text where the terminal has it, without a renderer's help."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from records import HIT, MISS, a_record, measured

from grbench.report.render import plain_text, svg
from grbench.report.table import tables

CELL = 12.2
"""Width of a character in the picture."""


def test_each_text_begins_at_its_own_place(tmp_path: Path) -> None:
    records = measured(tmp_path, "good <&>", [*HIT, *MISS]) + measured(tmp_path, "poor", [*MISS, *MISS[1:], 1.0])
    made = tables([*records, a_record("failed", 0)])
    lines: dict[float, str] = {}
    for text in ElementTree.fromstring(svg(made)).iter("{http://www.w3.org/2000/svg}text"):
        shown = (text.text or "").replace("\N{NO-BREAK SPACE}", " ")
        if text.get("textLength") is None:  # the window's title
            continue
        assert shown == shown.strip() != ""
        assert "  " not in shown
        place = round(float(text.get("x", "")) / CELL)
        line = lines.get(float(text.get("y", "")), "")
        assert len(line) <= place
        lines[float(text.get("y", ""))] = line.ljust(place) + shown
    assert [lines[y] for y in sorted(lines)] == [line for line in plain_text(made).splitlines() if line.strip()]
