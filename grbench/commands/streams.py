"""What commands print."""

from __future__ import annotations

import sys

import click

from grbench.output import printable

LINES = "\n\t"
"""Control characters that are shown as they are."""


def say(text: str, *, nl: bool = True) -> None:
    """Prints to stdout as it is encoded; left to itself, click writes UTF-8 to ASCII terminals. Characters that a
    terminal would obey are shown as escapes, since names and messages may be somebody else's."""
    click.echo(printable(text, LINES), nl=nl, file=sys.stdout)


def complain(text: str) -> None:
    """The same to stderr."""
    click.echo(printable(text, LINES), file=sys.stderr)
