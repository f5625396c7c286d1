"""Exceptions for errors that a user can correct. Each message says what is wrong, where, and what would be right."""

from __future__ import annotations


class GRBenchError(Exception):
    """Base class; the command line prints the message without a traceback."""


class SuiteError(GRBenchError):
    """The suite file or a command's arguments are invalid."""


class PluginError(GRBenchError):
    """A plug-in is missing, broken, registered twice, or lacks an interface that another one calls."""


class Problems:
    """Errors of a suite that are raised together, as one message of a line each.

    `with problems:` keeps a SuiteError or PluginError of its block, which ends there.
    """

    MOST = 100

    def __init__(self) -> None:
        self.found: dict[str, GRBenchError] = {}

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, SuiteError | PluginError):
            return False
        self.found.setdefault(str(error), error)
        return True

    def raise_found(self) -> None:
        """Raises what was found, if anything: one error as it is, several as a SuiteError of the first MOST."""
        if len(self.found) == 1:
            raise next(iter(self.found.values()))
        if self.found:
            lines = list(dict.fromkeys("\n".join(self.found).splitlines()))
            more = [f"... and {len(lines) - self.MOST:,} more"] if len(lines) > self.MOST else []
            raise SuiteError("\n".join(lines[: self.MOST] + more))


class DataError(GRBenchError):
    """A dataset is missing, incomplete, malformed, or does not fit the protocol."""


class RunError(GRBenchError):
    """A cell failed while it ran, or its results could not be written."""


class Terminated(KeyboardInterrupt):
    """SIGTERM has arrived; the command ends as after Ctrl-C. code: its exit status, as shells have it."""

    code = 143


class RunStopped(KeyboardInterrupt):
    """The run ends because of another cell; the message says why. A cell that runs ends as after Ctrl-C."""


class OutputClosed(BaseException):
    """Nobody reads the output any more (`grbench ... | head`). code: the exit status, as shells have it."""

    code = 141


def cut(text: str, longest: int = 80) -> str:
    """The text, or where it is longer, its first characters and its length."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"


def first_line(error: BaseException, longest: int = 200) -> str:
    """What an error of a library or the system says, in one line, cut short, since it may repeat a value of the data;
    its class where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return cut(next(filter(None, lines), type(error).__name__), longest)
