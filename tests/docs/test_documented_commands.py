"""The commands in the pages' shell examples have the arguments and options that they are shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from grbench.cli import cli

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)


def shown() -> list[str]:
    """Each command line once, without pipes and redirections."""
    blocks = [block for page in sorted(DOCS.glob("*.md")) for block in FENCE.findall(page.read_text())]
    lines = [
        line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("grbench ")
    ]
    return list(dict.fromkeys(re.split(r" [|>] ", line)[0] for line in lines))


@pytest.mark.parametrize("line", shown())
def test_a_command_that_a_page_shows_can_be_parsed(line: str) -> None:
    command: click.Command = cli
    context = click.Context(cli)
    _, *arguments = shlex.split(line, comments=True)
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        command = found
    assert command is not cli
    command.make_context(line, arguments, parent=context)


def test_pages_show_commands() -> None:
    assert {line.split()[1] for line in shown()} >= {"run", "rescore", "score", "export", "data"}
