"""What commands print."""

from __future__ import annotations

import sys

import click


def say(text: str, *, nl: bool = True) -> None:
    """Prints to stdout as it is encoded; left to itself, click writes UTF-8 to ASCII terminals."""
    click.echo(text, nl=nl, file=sys.stdout)


def complain(text: str) -> None:
    """The same to stderr."""
    click.echo(text, file=sys.stderr)
