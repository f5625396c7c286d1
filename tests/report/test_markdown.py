"""Markdown tables, read back by a Markdown parser."""

from __future__ import annotations

from markdown_it import MarkdownIt
from records import a_record

from grbench.report.markdown import markdown
from grbench.report.table import tables

NAMES = (
    *("a|b", "__x__", "_y_", "a_b_c", "<b>bold</b>", "*z*", "`q`", "~~s~~", "#h"),
    *("[t](u)", "[t][u]", "&amp; co", "R&D", r"back\slash", "![i](j)", "<!-- c -->"),
)


def test_what_is_rendered_is_what_was_named() -> None:
    text = markdown(tables([a_record(name, 0, 0.5) for name in NAMES]))
    assert "| a_b_c " in text  # readable as it is
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    assert not any(token.type == "html_block" for token in tokens)
    cells = [tokens[place + 1].children or [] for place, token in enumerate(tokens) if token.type == "td_open"]
    shown = cells[:: sum(token.type == "th_open" for token in tokens)]
    assert ["".join(part.content for part in parts) for parts in shown] == list(NAMES)
    assert {part.type for parts in shown for part in parts} <= {"text", "text_special"}


def test_formulas_of_github_are_escaped() -> None:
    assert r"\$x\$" in markdown(tables([a_record("$x$", 0, 0.5)]))
