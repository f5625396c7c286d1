"""Standard output and error of the command line: in any encoding, and with readers that stop early."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from grbench.errors import OutputClosed

ASCII = {"±": "+-", "↑": "^", "↓": "v", "→": "->", "—": "-", "…": "...", "°": "o", "†": "!", "‡": "#", "‖": "//"}
"""What stands for a character that an encoding lacks; for any other one a question mark does."""

_ERRORS = "grbench.ascii"

_HARMLESS = re.compile(r"[\x20-\x7e]*")
_JOINERS = "\u200c\u200d"
"""Characters without width that several scripts and emoji need."""
_COMMANDS = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, of invisible ones (that change the direction of text, too), of halves of
characters, and of separators of lines."""


def printable(text: str, keep: str = "") -> str:
    """The text with each character that a terminal, a page or a table would obey and not show written as its escape:
    ESC as `\\x1b`, the override of the direction of text as `\\u202e`. keep: control characters that stay, such as
    line ends. Whatever somebody else wrote (names, titles, errors, logs) goes through here before it is shown."""
    if _HARMLESS.fullmatch(text):
        return text
    return "".join(
        character
        if character in keep or character in _JOINERS or unicodedata.category(character) not in _COMMANDS
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


class _Pipe(io.BufferedWriter):
    """Bytes that are written to a file descriptor. Raises OutputClosed where nobody reads them, whatever the libraries
    between make of the system's error; what is written after that is lost."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise self._closed() from None

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise self._closed() from None

    def _closed(self) -> OutputClosed:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)
        return OutputClosed()


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Lets `sys.stdout` and `sys.stderr` take any text, and raise OutputClosed where nobody reads them."""
    codecs.register_error(_ERRORS, _in_ascii)
    before = sys.stdout, sys.stderr
    made: list[io.TextIOWrapper] = []
    sys.stdout, sys.stderr = (_robust(stream, made) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in made:
            with contextlib.suppress(OutputClosed, OSError):
                stream.close()  # but not the descriptor


def _robust(stream: TextIO | None, made: list[io.TextIOWrapper]) -> TextIO:
    """The stream to use in place of this one; those that write to its descriptor are appended to `made`."""
    if stream is None:  # closed by the caller's shell: `>&-`
        return Path(os.devnull).open("w", encoding="utf-8")
    if type(stream) is not io.TextIOWrapper:  # somebody else's
        return stream
    stream.flush()
    made.append(
        io.TextIOWrapper(
            _Pipe(io.FileIO(stream.fileno(), "wb", closefd=False)),
            encoding=stream.encoding,
            errors=_ERRORS,
            line_buffering=stream.line_buffering or stream.write_through,
        )
    )
    return made[-1]


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(ASCII.get(character, "?") for character in text), error.end
