"""Whether a folder is the same one on another machine, as that of the results must be where cells run on several."""

from __future__ import annotations

import contextlib
import os
import platform
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from grbench.errors import RunError
from grbench.temporary import beside

PATIENCE_SECONDS = 20.0
"""For file systems that show other machines' files late."""


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[dict[str, str]]:
    """Puts a mark into the folder; yields what another machine is told of it (`require_shared`), JSON-ready. Raises
    RunError where the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with beside(folder / f"shared-{uuid.uuid4().hex}") as mark:
            mark.touch()
            yield {"folder": str(folder.resolve()), "mark": mark.name, "host": platform.node()}
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror})") from error


def require_shared(mark: Mapping[str, str], *, patience: float = PATIENCE_SECONDS) -> None:
    """Raises RunError unless the folder of this machine has the mark that another one has put there. patience: seconds
    until then."""
    folder, deadline = Path(mark["folder"]), time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError):  # of a network's file system, only a listing shows what is new
            if mark["mark"] in os.listdir(folder):
                return
        if time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    raise RunError(
        f"{folder}: is another folder on {platform.node()} than on {mark['host']}, so results would be lost; give "
        "--results on a file system that all machines mount. Data need none: they may lie in a bucket"
    )
