"""Groups of commands, whose help shows the first sentence of each command's whole."""

from __future__ import annotations

import click

LONGEST = 1_000
"""More characters than the first sentence of any help text has."""


class WholeSummaries(click.Group):
    """A group whose help wraps summaries that do not fit on a line, where click's cuts them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes names and summaries of all commands."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = [(name, each.get_short_help_str(LONGEST)) for name, each in commands.items() if each and not each.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
