"""How this installation's programs are called from the shell that called it, for messages that name a command."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path


def program(name: str = "grbench") -> str:
    """`grbench` where the shell would find this installation's one, else its path: `.venv/bin/grbench`."""
    folder = Path(sys.executable).parent
    found = shutil.which(name)
    if found and Path(found).parent.resolve() == folder.resolve():
        return name
    if not (folder / name).exists():  # such as `python -m grbench` of a checkout that is not installed
        return f"{_called(Path(sys.executable))} -m {name}"
    return _called(folder / name)


def pip(arguments: str) -> str:
    """The command that has pip, or uv where the environment has no pip, do something in this environment. arguments:
    such as `install 'grbench[dev]'`, quoted for a shell."""
    python = program(Path(sys.executable).name)
    return f"{python} -m pip {arguments}" if find_spec("pip") else f"uv pip {arguments} --python {python}"


def _called(path: Path) -> str:
    """The path, from the working folder where it lies below it."""
    here = Path(os.path.abspath(path))  # symbolic links stay: a virtual environment's Python is one
    near = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    return shlex.quote(str(near))
