"""The files that a run reads, as Python's audit events name them.

A library that opens files in its own C or C++ code, such as Arrow or Faiss, is not seen.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

SYSTEM = ("/proc", "/sys", "/dev", "/etc")
IMPORTED = frozenset({".py", ".pyc", ".pyi", ".so", ".pyd", ".dll"})
"""Suffixes of modules, which are read when they are imported."""

HEARD = frozenset({"open", "os.mkdir", "os.rename"})
"""The audit events that are taken in."""

_WRITES = os.O_WRONLY | os.O_RDWR

# An audit hook can never be removed from a process, so there is one, which does nothing unless somebody watches.
_watching: list[OpenedFiles] = []
_hooked: list[bool] = []


class OpenedFiles:
    """A context that notes which files are read, by any thread of the process.

    makers: {file of a module: the part whose code it is}. A file is said to be read by `current`; where that part
    `calls` others, by the innermost of them that is on the stack.
    """

    def __init__(self, makers: Mapping[str, str]) -> None:
        self.makers, self.current, self.calls = makers, "", False
        self._read: dict[str, str] = {}
        self._own: set[str] = set()

    def __enter__(self) -> Self:
        if not _hooked:
            sys.addaudithook(_hook)
            _hooked.append(True)
        _watching.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _watching.remove(self)

    def read(self, ignored: Iterable[Path] = ()) -> dict[Path, str]:
        """{file: the part that read it}, without files of the system, of Python and of installed libraries, without
        modules, without what the run itself had written, and without what lies in the ignored folders."""
        folders = [*_installed(), *map(os.path.realpath, ignored)]
        found: dict[Path, str] = {}
        for name, maker in self._read.items():
            path = os.path.realpath(name)
            if not os.path.isfile(path) or Path(path).suffix in IMPORTED or self._made_here(name):
                continue
            if not any(_inside(path, folder) for folder in folders):
                found[Path(path)] = maker
        return found

    def hear(self, event: str, arguments: tuple[Any, ...], frame: FrameType | None) -> None:
        """Takes in an audit event: `open` (path, mode, flags), `os.mkdir` (path, ...), `os.rename` (from, to, ...)."""
        if isinstance(arguments[0], int):  # a descriptor, which was opened before
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if event == "os.rename":
            if path in self._own:
                self._own.add(os.path.abspath(os.fsdecode(arguments[1])))
        elif event == "os.mkdir" or _writes(*arguments[1:3]):
            self._own.add(path)
        else:
            self._read.setdefault(path, self._maker(frame))

    def _maker(self, frame: FrameType | None) -> str:
        while frame is not None and self.calls:
            if frame.f_code.co_filename in self.makers:
                return self.makers[frame.f_code.co_filename]
            frame = frame.f_back
        return self.current

    def _made_here(self, path: str) -> bool:
        return any(_inside(path, own) for own in self._own)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in HEARD:  # to look at the stack is an event too
        # An exception in a hook would look like one of the plug-in's; a path that is none is the plug-in's to explain.
        with suppress(TypeError, ValueError, OSError):
            for watcher in _watching:
                watcher.hear(event, arguments, sys._getframe(1))


def _writes(mode: str | None, flags: int) -> bool:
    """mode: of `open`; None for `os.open`, which has flags only."""
    return bool(flags & _WRITES) if mode is None else bool(set(mode) & set("wax+"))


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _installed() -> list[str]:
    folders = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *site.getsitepackages(), *SYSTEM}
    return [os.path.realpath(folder) for folder in folders]
