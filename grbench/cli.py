"""The command line interface. Each command imports what it needs when it runs, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from grbench import __version__
from grbench.errors import GRBenchError, OutputClosed, RunError
from grbench.output import standard_streams

EXIT_INVALID = 2


class CommandGroup(click.Group):
    """The commands below, and those of plug-ins, which are loaded only when needed."""

    _plugins_loaded = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, for the help text."""
        self._load_plugin_commands()
        return sorted(super().list_commands(ctx))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Finds a command; plug-ins are loaded only where it is not built in."""
        if cmd_name not in self.commands:
            self._load_plugin_commands()
        return super().get_command(ctx, cmd_name)

    def _load_plugin_commands(self) -> None:
        if not self._plugins_loaded:
            self._plugins_loaded = True
            from grbench.registry.discovery import Registry

            Registry.load().add_commands(self)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="grbench")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Compares generative-recommendation methods: same data, same split, same candidates, same metrics, measured cost.

    \b
    grbench run quickstart                        run an installed suite and print its table
    grbench run my_suite.yaml                     run your own
    grbench table results/quickstart --format md  make the table again from the records
    grbench plugins                               list installed plug-ins
    """


@cli.command()
@click.argument("suite")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the suite; repeatable.")
@click.option("--only", multiple=True, metavar="NAME", help="Run this method (or grid) only; repeatable.")
@click.option("--seeds", type=click.IntRange(min=1), metavar="N", help="Run the first N seeds only.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--dry-run", is_flag=True, help="Print the plan, disk and memory included, and stop.")
@click.option("--force", is_flag=True, help="Run finished cells again too.")
@click.option("--oversize", is_flag=True, help="Run cells that are not expected to fit into memory or on the disk.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    metavar="DIR",
    help="Folder for records, with one folder per suite.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for stores  [default: $GRBENCH_CACHE or ~/.cache/grbench]",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Stop a cell after this time."
)
@click.pass_context
def run(context: click.Context, /, suite: str, only: tuple[str, ...], **options: Any) -> None:
    """Run a suite: every method with every seed (a cell), each in its own process, then print the table.

    SUITE is a YAML file or the name of an installed suite (`grbench suite list`).

    Finished cells are not run again. Failed cells are rows of the table with their reason, and are tried again by the
    same command. Ctrl-C keeps finished cells. Exit status: 0 success, 1 some cells failed, 2 invalid suite or
    arguments, 130 interrupted (143 by SIGTERM, 141 where nobody reads the output any more).

    \b
    grbench run quickstart
    grbench run quickstart --only most_popular --seeds 1
    grbench run preliminary_round --set dataset.path=data/TencentGR-1M --dry-run
    grbench run my_suite.yaml
    """
    from rich.console import Console

    from grbench.report.render import print_tables
    from grbench.report.table import tables
    from grbench.run.run_suite import RunRequest, run_suite

    console = Console()
    outcome = run_suite(RunRequest(suite=suite, only=only or None, **options), console)
    print_tables(tables(outcome.records), console)
    failed = [record for record in outcome.records if record.status != "ok"]
    if failed:
        logs = options["results"] / failed[0].suite
        _say(f"\n{len(failed)} of {len(outcome.records)} cells failed; each has a log, {logs}/<digest>.log:")
        for record in failed:
            _say(f"  {record.digest}  {record.method}, seed {record.seed}: {record.status}")
    context.exit(outcome.code)


@cli.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "md", "latex", "csv", "svg"]),
    help="[default: by the suffix of --out, else terminal, or md where the output goes to a file or a pipe]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write there instead of the terminal; a name in .txt (as on a terminal), .md, .tex, .csv or .svg.",
)
def table(results: tuple[Path, ...], form: str | None, out: Path | None) -> None:
    """Make tables from records in folders of results or in single record files.

    Records that cannot be compared (other data, protocol, candidate pool or metric version) are in separate tables.

    \b
    grbench table results/quickstart
    grbench table results/quickstart --format latex --out quickstart.tex
    grbench table results/final_round other_machine/final_round --format csv
    """
    from rich.console import Console

    from grbench.report.render import format_of_file, print_tables, render
    from grbench.report.table import tables
    from grbench.results.record import read_records

    records = read_records(results, note=lambda text: click.echo(f"note: {text}", err=True))
    if not records:
        raise RunError(f"{', '.join(map(str, results))}: there are no records; grbench run SUITE writes them")
    made = tables(records)
    if out is not None:
        text = render(made, format_of_file(out, form))
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RunError(f"{out}: cannot be written ({error.strerror})") from error
    elif form in (None, "terminal"):
        print_tables(made, Console(force_terminal=True if form and not os.environ.get("NO_COLOR") else None))
    else:
        _say(render(made, form or "md"), nl=False)


@cli.group(invoke_without_command=True)
@click.pass_context
def plugins(context: click.Context) -> None:
    """List the installed plug-ins, or show one.

    \b
    grbench plugins
    grbench plugins show encoders causal_transformer
    """
    if context.invoked_subcommand is None:
        context.invoke(list_plugins)


@plugins.command("list")
@click.argument("kind", required=False)
def list_plugins(kind: str | None = None) -> None:
    """List plug-ins of all kinds, or of one, with their packages and options."""
    from tabulate import tabulate

    from grbench.registry.discovery import Registry
    from grbench.registry.options import describe
    from grbench.run.prepare import store_cache

    registry = Registry.load(signature_cache=store_cache())
    rows = [
        [
            plugin.kind,
            plugin.name,
            plugin.distribution,
            plugin.version,
            ", ".join(option.name for option in describe(plugin.factory)),
        ]
        for plugin in registry.plugins(_kind(kind) if kind else None)
    ]
    _say(
        tabulate(
            rows,
            headers=["kind", "name", "distribution", "version", "options"],
            maxcolwidths=[None, None, None, None, 60],
            disable_numparse=True,
        )
    )
    for broken in registry.broken:
        _say(f"\nbroken: {broken.kind} {broken.name} of {broken.distribution} {broken.version}: {broken.reason}")
    registry.save_signatures()


@plugins.command("show")
@click.argument("kind")
@click.argument("name")
def show_plugin(kind: str, name: str) -> None:
    """Show a plug-in's options with their types, defaults and documentation.

    \b
    grbench plugins show encoders causal_transformer
    """
    import inspect

    from tabulate import tabulate

    from grbench.registry.discovery import Registry
    from grbench.registry.options import describe

    plugin = Registry.load().get(_kind(kind), name)
    documentation = inspect.cleandoc(plugin.factory.__doc__ or "").partition("\nArgs:")[0].strip()
    _say(f"{plugin.kind} {plugin.name} ({plugin.distribution} {plugin.version})\n")
    if documentation:
        _say(documentation + "\n")
    rows = [[option.name, option.type, option.default, option.doc] for option in describe(plugin.factory)]
    if rows:
        headers = ["option", "type", "default", "what it does"]
        _say(tabulate(rows, headers=headers, maxcolwidths=[None, 32, 20, 60], disable_numparse=True))
    else:
        _say("no options")


def _kind(kind: str) -> str:
    """The plural name of a kind, given in plural or singular; raises PluginError for an unknown kind."""
    from grbench.errors import PluginError
    from grbench.hookspecs import KINDS
    from grbench.registry.options import suggestion

    kinds = {kind.singular: name for name, kind in KINDS.items()} | {name: name for name in KINDS}
    if kind not in kinds:
        raise PluginError(f"unknown kind {kind!r}; {suggestion(kind, KINDS)}")
    return kinds[kind]


@cli.group()
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
    _say(tabulate(rows, headers=["suite", "title", "methods", "file"], disable_numparse=True))


@suite.command("show")
@click.argument("name")
def show_suite(name: str) -> None:
    """Print a suite's file, to start your own from.

    \b
    grbench suite show quickstart > my_suite.yaml
    """
    from grbench.suite.file import read_suite_file
    from grbench.suite.installed import suite_file

    file = suite_file(name)
    read_suite_file(file)
    _say(file.read_text(encoding="utf-8-sig"), nl=False)


@suite.command("validate")
@click.argument("files", metavar="SUITE...", nargs=-1, required=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the suite; repeatable.")
@click.pass_context
def validate_suites(context: click.Context, files: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check suites without reading data: names, options, types, and whether the parts fit together.

    All that is wrong with them is listed. Exit status: 0 valid, 1 valid but with broken plug-ins, 2 invalid.
    """
    from grbench.errors import Problems
    from grbench.registry.discovery import Registry
    from grbench.report.format import counted
    from grbench.run.prepare import store_cache
    from grbench.suite.suite import checked_cells

    registry, all_usable, problems = Registry.load(signature_cache=store_cache()), True, Problems()
    for file in files:
        cells = None
        with problems:
            cells = checked_cells(file, overrides, registry)
        if cells is None:
            continue
        broken = {cell.method.name: cell.error for cell in cells if cell.error}
        for name, error in broken.items():
            _complain(f"{file}: {name} cannot run: {error}")
        if not broken:
            methods = len({cell.method.name for cell in cells})
            _say(f"{file}: valid, {counted(len(cells), 'cell')} ({counted(methods, 'method')})")
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

    _say(json.dumps(suite_schema(Registry.load()), indent=1))


def _say(text: str, *, nl: bool = True) -> None:
    """Prints to stdout as it is encoded; left to itself, click writes UTF-8 to ASCII terminals."""
    click.echo(text, nl=nl, file=sys.stdout)


def _complain(text: str) -> None:
    """The same to stderr."""
    click.echo(text, file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status. Errors of grbench or the system are printed as one message, status
    2. Where nobody reads the output any more, the command ends quietly with status 141."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with standard_streams():
            return _status(given)
    except OutputClosed as closed:
        return closed.code


def _status(given: list[str]) -> int:
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]  # it may be anywhere on the command line
    try:
        # In standalone mode, click would print tracebacks for the errors below, and exit with 1 on Ctrl-C.
        status = int(cli.main(given, prog_name="grbench", standalone_mode=False) or 0)
        sys.stdout.flush()
        return status
    except GRBenchError as error:
        if debug:
            traceback.print_exc()
        _complain(f"grbench: {error}")
        return EXIT_INVALID
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("Interrupted.")
        return 130
    except OSError as error:  # such as a full disk or a read-only folder, which a traceback would not explain
        if debug:
            traceback.print_exc()
        _complain(f"grbench: {_system_message(error)}")
        return EXIT_INVALID


def _system_message(error: OSError) -> str:
    """The operating system's message, with the file where it is known."""
    message = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {message}" if error.filename else message
