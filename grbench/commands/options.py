"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the suite; repeatable."
)
results_option = click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    metavar="DIR",
    help="Folder of results, with one folder per suite.",
)
cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for stores  [default: $GRBENCH_CACHE or ~/.cache/grbench]",
)
