"""What is done on a node of a cluster for one cell: the same child as on this machine, whose events go into a file.

The scheduler of a cluster starts `run_on_node` there. The run reads the file while it grows, so the folder of results
has to be on a file system that all nodes share.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from grbench.cache import cache_folder
from grbench.errors import RunError
from grbench.run.backends.child_process import ChildMessage, ChildMessages, End, ForkServer, run_child
from grbench.run.backends.shared_folder import require_shared
from grbench.run.neighbours import Neighbours


@dataclass(frozen=True)
class NodeTask:
    """What a node is to run: `main(job, events)` of a module.

    first: a module that is run before it with the same job, to make sure that the node can; modules: what a fork server
    there imports besides the core; log, events: files to write; mark: what the run has put into their folder, which is
    there where it is shared; working_folder: of the run, where relative paths begin; cache: None = the node's own.
    """

    module: str
    job: Mapping[str, Any]
    first: str | None
    modules: tuple[str, ...]
    log: Path
    events: Path
    mark: Mapping[str, str]
    working_folder: Path
    cache: Path | None
    threads: int
    timeout: float | None


@dataclass(frozen=True)
class NodeEnd:
    """How it ended. refused: why nothing could be run there; end is None then."""

    end: End | None
    refused: str = ""


def run_on_node(task: NodeTask, place: str) -> NodeEnd:
    """Runs the task in a child of this process. place: the node's name, for lines of progress. KeyboardInterrupt stops
    the child."""
    if task.working_folder.is_dir():
        os.chdir(task.working_folder)
    try:
        require_shared(task.mark)
    except RunError as error:
        return NodeEnd(None, str(error))
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    with task.events.open("a", encoding="utf-8") as file:  # Slurm may start a job a second time
        if file.tell():
            file.write("\n")  # the first time may have ended within a line
        tell = ChildMessages(file)
        tell("place", name=f"{place}, GPU {gpus}" if gpus else place)
        with Neighbours(cache_folder(task.cache), None, task.threads) as neighbours:

            def listen(event: ChildMessage) -> None:
                values = {key: value for key, value in event.items() if key != "event"}
                if event["event"] == "checkpoint":  # the run keeps with it what ran beside the cell until then
                    tell("neighbours", facts=neighbours.facts())
                tell(event["event"], **values)

            server = _server(task.modules, task.threads, gpus)
            try:
                end = End(0, False, "")
                if task.first is not None:
                    end = run_child(server, task.first, task.job, log=task.log, listen=listen, tick=_nothing)
                if end.code == 0:
                    end = run_child(
                        server, task.module, task.job, log=task.log, listen=listen, tick=_nothing, timeout=task.timeout
                    )
            except RunError as error:
                return NodeEnd(None, f"node {place}: {error}")
            finally:
                tell("neighbours", facts=neighbours.facts())
    return NodeEnd(end)


def host() -> str:
    """The name of this machine."""
    return platform.node()


@lru_cache(maxsize=1)
def _server(modules: tuple[str, ...], threads: int, gpus: str) -> ForkServer:
    """The fork server of this process, for as long as its cells may use the same. One that is forgotten ends by itself
    when its socket is closed."""
    settings = {"OMP_NUM_THREADS": str(threads), **({"CUDA_VISIBLE_DEVICES": gpus} if gpus else {})}
    return ForkServer(modules, settings=settings, note=lambda text: print(text, file=sys.stderr))  # noqa: T201


def _nothing() -> None:
    """A cell on a node is stopped by its scheduler."""
