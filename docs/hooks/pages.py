"""Adds to the site the pages that are generated at each build, from the commands, the registry, the record's schema,
the examples and the changelog. None of them is a file of the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from reference.commands import commands_page
from reference.examples import examples_page
from reference.plugins import plugin_pages
from reference.record import record_page
from reference.training import training_page

ROOT = Path(__file__).parents[2]

PAGE_OF = {
    "../examples/README.md": "examples.md",
    "../results/README.md": "results_folder.md",
    "../grbench/interfaces.py": "reference/plugins/index.md",
}
"""{a file out of docs/: the generated page with its content}; links to others are for GitHub alone."""


def pages() -> dict[str, str]:
    """{path below docs/: Markdown} of all generated pages."""
    return {
        "reference/commands.md": commands_page(),
        "reference/training.md": training_page(),
        "reference/record.md": record_page(ROOT / "docs" / "record_schema.json"),
        "examples.md": examples_page(ROOT / "examples"),
        "results_folder.md": (ROOT / "results" / "README.md").read_text(),
        "changes.md": (ROOT / "CHANGELOG.md").read_text(),
        **{f"reference/plugins/{name}.md": page for name, page in plugin_pages().items()},
    }


def on_files(files: Files, *, config: Any) -> Files:
    """mkdocs' event: the site's files are known."""
    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """mkdocs' event: a page is read. What is written for GitHub is put as the site has it: links out of docs/, and
    blocks of code that name their file (three backticks, `text log.csv`), which becomes their title."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation", "toc"]
    if page.file.src_uri == "changes.md":
        page.meta["search"] = {"boost": 0.1}  # what is found there comes last
    if page.file.generated_by is None:
        markdown = re.sub(r"\[([^\]]+)\]\((\.\./[^)]+)\)", _link, markdown)
    return re.sub(r"^```(\w+) ([\w./*-]+)$", r'```\1 title="\2"', markdown, flags=re.MULTILINE)


def _link(found: re.Match[str]) -> str:
    text, target = found.groups()
    return f"[{text}]({PAGE_OF[target]})" if target in PAGE_OF else text
