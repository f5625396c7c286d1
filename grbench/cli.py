"""The command line interface: the group of all commands, and how errors become messages and exit statuses."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence

import click

from grbench import __version__
from grbench.commands.audit import audit
from grbench.commands.check import check
from grbench.commands.compare import compare
from grbench.commands.completion import completion
from grbench.commands.doctor import doctor
from grbench.commands.export import export
from grbench.commands.groups import WholeSummaries
from grbench.commands.merge import merge
from grbench.commands.new import new
from grbench.commands.plot import plot
from grbench.commands.plugins import plugins
from grbench.commands.prune import prune
from grbench.commands.report import report
from grbench.commands.reproduce import reproduce
from grbench.commands.rescore import rescore
from grbench.commands.run import run
from grbench.commands.schema import schema
from grbench.commands.score import score
from grbench.commands.status import status
from grbench.commands.streams import complain
from grbench.commands.suite import suite
from grbench.commands.table import table
from grbench.commands.verify import verify
from grbench.errors import GRBenchError, OutputClosed
from grbench.output import standard_streams

EXIT_INVALID = 2

_ELSEWHERE = "choose another folder (--results, --cache, --out)"
REMEDIES = {
    errno.ENOSPC: f"free some, or {_ELSEWHERE}",
    errno.EDQUOT: f"free some of your quota, or {_ELSEWHERE}",
    errno.EACCES: f"change its permissions, or {_ELSEWHERE}",
    errno.EROFS: _ELSEWHERE,
    errno.EMFILE: "allow more open files (ulimit -n 4096)",
}
"""What to do about errors of the operating system."""


class CommandGroup(WholeSummaries):
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
    grbench report results/quickstart --out report.html  the same with figures, as a web page
    grbench audit quickstart                      look for leaks in its methods
    grbench compare A B --results results/quickstart  compare two methods
    grbench plugins                               list installed plug-ins
    grbench new plugin NAME --kinds encoder,loss  write a package of plug-ins to start from
    grbench check encoder:NAME                    check a plug-in of yours
    """


COMMANDS = (
    *(run, status, audit, verify),
    *(table, report, plot, compare, reproduce),
    *(rescore, score, export),
    *(merge, prune),
    *(plugins, new, check, suite, schema),
    *(doctor, completion),
)

for _command in COMMANDS:
    cli.add_command(_command)


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
            complain(traceback.format_exc())
        complain(f"grbench: {error}")
        return EXIT_INVALID
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        complain("Interrupted.")
        return 130
    except ImportError as error:  # a library that is missing, or was built for another system
        if debug:
            complain(traceback.format_exc())
        complain(f"grbench: {error}; grbench doctor --thorough says what is missing and how to add it")
        return EXIT_INVALID
    except OSError as error:  # such as a full disk or a read-only folder, which a traceback would not explain
        if debug:
            complain(traceback.format_exc())
        complain(f"grbench: {_system_message(error)}")
        return EXIT_INVALID


def _system_message(error: OSError) -> str:
    """The operating system's message, with the file and what can be done, where they are known."""
    message = error.strerror or str(error) or type(error).__name__
    remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
    return f"{error.filename}: {message}{remedy}" if error.filename else message + remedy
