"""`grbench schema`: the JSON schemas of what grbench writes."""

from __future__ import annotations

import click

from grbench.commands.groups import WholeSummaries
from grbench.commands.streams import say


@click.group(cls=WholeSummaries)
def schema() -> None:
    """Print JSON schemas of files that grbench writes (that of suite files: `grbench suite schema`).

    \b
    grbench schema record > record.schema.json
    """


@schema.command("record")
def print_record_schema() -> None:
    """Print the JSON schema of a record, results/SUITE/<digest>.json."""
    import json

    from grbench.results.record_schema import record_schema

    say(json.dumps(record_schema(), indent=1))
