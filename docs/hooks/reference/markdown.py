"""Plain text and tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

CODE = re.compile(r"(`[^`]+`)")


def escaped(text: str) -> str:
    """Text that shows as it is, but for what is between backticks, which stays code."""
    parts = CODE.split(text)
    plain = [
        re.sub(r"([\\*_\[\]{}|#])", r"\\\1", part).replace("<", "&lt;").replace(">", "&gt;") for part in parts[::2]
    ]
    parts[::2] = plain
    return "".join(parts)


def code(text: str) -> str:
    """Text as code in a line, empty where there is none."""
    return f"`{text}`" if text else ""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown, each on one line."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |" for line in lines) + "\n"


def block(text: str, language: str) -> str:
    """A block of code."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def folded(title: str, content: str) -> str:
    """Content that shows when its title is clicked."""
    indented = "\n".join(f"    {line}" if line else "" for line in content.rstrip().splitlines())
    return f'??? note "{title}"\n\n{indented}\n'
