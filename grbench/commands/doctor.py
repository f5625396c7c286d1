"""`grbench doctor`: what this machine and this installation can do."""

from __future__ import annotations

from pathlib import Path

import click

from grbench.commands.options import cache_option
from grbench.commands.streams import say


@click.command()
@cache_option
@click.option("--thorough", is_flag=True, help="Import libraries and every plug-in too, and compute on the GPU.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a bug report, without user and host names.")
@click.pass_context
def doctor(context: click.Context, cache: Path | None, thorough: bool, as_json: bool) -> None:
    """Show what this machine can do, and what is missing with the command that adds it.

    Looked at are Python, libraries, Faiss, GPU and driver, memory and processors, the cache's disk, plug-ins and
    extras. Exit status: 0 runs can start, 1 something would stop them.

    \b
    grbench doctor
    grbench doctor --thorough
    grbench doctor --json > machine.json
    """
    from grbench.doctor.examine import can_run, examine, json_of, text_of

    diagnoses = examine(cache, thorough=thorough)
    say(json_of(diagnoses) if as_json else text_of(diagnoses))
    context.exit(0 if can_run(diagnoses) else 1)
