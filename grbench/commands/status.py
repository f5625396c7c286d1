"""`grbench status`: how far a suite is."""

from __future__ import annotations

from pathlib import Path

import click

from grbench.commands import complete
from grbench.commands.options import overrides_option, results_option
from grbench.commands.streams import say


@click.command()
@click.argument("suite", shell_complete=complete.suites)
@overrides_option
@results_option
def status(suite: str, overrides: tuple[str, ...], results: Path) -> None:
    """Show which cells of a suite are done, run somewhere (host, process, since when), failed or are to do, and about
    how long the rest will take.

    Nothing is run, and of the data only what names its version is read.

    \b
    grbench status quickstart
    grbench status my_suite.yaml --results /shared/results
    """
    from grbench.cache import cache_folder
    from grbench.registry.discovery import Registry
    from grbench.run.status import suite_status
    from grbench.run.tuned_methods import plan_with_choices
    from grbench.suite.suite import load_suite

    registry = Registry.load(signature_cache=cache_folder())
    loaded = load_suite(suite, overrides)
    plan, tuned = plan_with_choices(loaded, loaded.cells(registry), registry, results)
    registry.save_signatures()
    say(suite_status(plan, tuned).text(), nl=False)
