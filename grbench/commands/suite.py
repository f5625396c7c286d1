"""`grbench suite`: lists, shows and checks suites."""

from __future__ import annotations

import sys
from typing import Any

import click

from grbench.commands import complete
from grbench.commands.groups import WholeSummaries
from grbench.commands.options import overrides_option
from grbench.commands.streams import complain, say


@click.group(cls=WholeSummaries)
def suite() -> None:
    """List, show and check suites.

    \b
    grbench suite list
    grbench suite show quickstart > my_suite.yaml
    grbench suite validate my_suite.yaml
    grbench suite schema > suite.schema.json
    """


@suite.command("list")
def list_suites() -> None:
    """List the installed suites, which `grbench run NAME` finds by name."""
    from tabulate import tabulate

    from grbench.errors import SuiteError
    from grbench.suite.file import read_suite_file
    from grbench.suite.installed import installed_suites

    rows: list[list[Any]] = []
    for name, file in installed_suites().items():
        try:
            content = read_suite_file(file)
        except SuiteError as error:
            rows.append([name, f"broken: {error}", "", ""])
            continue
        methods = content.get("methods")
        rows.append([name, content.get("title"), len(methods) if isinstance(methods, dict) else "", str(file)])
    say(tabulate(rows, headers=["suite", "title", "methods", "file"], disable_numparse=True))


@suite.command("show")
@click.argument("name", shell_complete=complete.installed_suite_names)
def show_suite(name: str) -> None:
    """Print a suite's file, to start your own from.

    \b
    grbench suite show quickstart > my_suite.yaml
    """
    from grbench.suite.file import read_suite_file
    from grbench.suite.installed import suite_file

    file = suite_file(name)
    read_suite_file(file)
    sys.stdout.write(file.read_text(encoding="utf-8-sig"))  # as it is: it is copied to a file


@suite.command("validate")
@click.argument("files", metavar="SUITE...", shell_complete=complete.suites, nargs=-1, required=True)
@overrides_option
@click.pass_context
def validate_suites(context: click.Context, files: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check suites without reading data: names, options, types, and whether the parts fit together.

    All that is wrong with them is listed. Exit status: 0 valid, 1 valid but with broken plug-ins, 2 invalid.
    """
    from grbench.cache import cache_folder
    from grbench.errors import Problems
    from grbench.registry.discovery import Registry
    from grbench.report.format import counted
    from grbench.suite.suite import checked_cells

    registry, all_usable, problems = Registry.load(signature_cache=cache_folder()), True, Problems()
    for file in files:
        cells = None
        with problems:
            cells = checked_cells(file, overrides, registry)
        if cells is None:
            continue
        broken = {cell.method.name: cell.error for cell in cells if cell.error}
        for name, error in broken.items():
            complain(f"{file}: {name} cannot run: {error}")
        if not broken:
            methods = len({cell.method.name for cell in cells})
            say(f"{file}: valid, {counted(len(cells), 'cell')} ({counted(methods, 'method')})")
        all_usable &= not broken
    registry.save_signatures()
    problems.raise_found()
    context.exit(0 if all_usable else 1)


@suite.command("schema")
def print_schema() -> None:
    """Print the JSON schema of suite files, with the options of all installed plug-ins, for editors."""
    import json

    from grbench.registry.discovery import Registry
    from grbench.suite.json_schema import suite_schema

    say(json.dumps(suite_schema(Registry.load()), indent=1))
