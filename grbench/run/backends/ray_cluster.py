"""The back-end of a Ray cluster: a task a cell, with the CPUs, the GPU and the memory that it needs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from grbench.cost.limits import asked_threads, processor_limit
from grbench.errors import RunError, first_line
from grbench.report.format import size_text
from grbench.run.backends.backend import Needs, SiteRequest
from grbench.run.backends.child_process import ForkServer
from grbench.run.backends.cluster import ClusterSite, Lost
from grbench.run.backends.on_node import NodeEnd, NodeTask, host, run_on_node

ADDRESS = "RAY_ADDRESS"
REACH_SECONDS = 5.0
COUNT_SECONDS = 2.0
"""So long the number of nodes is taken for what it was: it is asked for with each cell that waits."""
USUAL_CPUS = 4
REFUSED = b"InvalidAuthToken"
"""What Ray prints of a cluster that wants another token than this machine has."""
OBJECT_STORE_BYTES = 100 << 20
"""Of a Ray of this machine alone. Data, models and results are files: next to nothing goes through its store."""


def ray_site(request: SiteRequest, server: ForkServer, *, note: Callable[[str], None]) -> ClusterSite:
    """Connects to the cluster at the address, or that RAY_ADDRESS names; else starts one of this machine alone. Raises
    RunError where it cannot be reached."""
    _connect(request.address or os.environ.get(ADDRESS) or None, note)
    try:
        return ClusterSite(request, RayScheduler(request), server.modules)
    except BaseException:
        ray.shutdown()
        raise


def _connect(address: str | None, note: Callable[[str], None]) -> None:
    """Ray takes over SIGTERM, which is the run's."""
    options: dict[str, Any] = {"address": address}
    if address is None:
        cpus = max(1, int(processor_limit()))
        note(
            f"note: neither --address nor {ADDRESS} names a cluster: Ray is started on this machine alone, {cpus} CPUs"
        )
        options = {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_system_config": {"worker_niceness": 0},  # Ray's own is 15: beside anything else, cells would crawl
        }
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it sends figures to its makers, which nobody asked for
    elif "://" in address:
        raise RunError(
            f"--address {address}: an address of Ray Client; start the run on a machine of the cluster, which sees the "
            "folder of results, and give the address as HOST:PORT, or as auto there"
        )
    else:
        _reach(address)
    before = signal.getsignal(signal.SIGTERM)
    with _kept_errors() as said:
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises several kinds, RuntimeError among them
            said.seek(0)
            raise _unreachable(address or "of this machine", error, said.read()) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _kept_errors() -> Iterator[IO[bytes]]:
    """What is printed on stderr inside, by Ray's C++ code above all, which says there alone why it is refused."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def _unreachable(cluster: str, error: Exception, said: bytes) -> RunError:
    """What to raise where Ray cannot connect. said: by Ray on stderr."""
    if REFUSED in said:
        return RunError(
            f"the Ray cluster {cluster} refuses this machine, which has another token or none; `ray get-auth-token` "
            "on its head prints the right one, which is that of RAY_AUTH_TOKEN here, with RAY_AUTH_MODE=token"
        )
    return RunError(
        f"the Ray cluster {cluster} cannot be reached ({first_line(error)}); `ray status` says whether it runs, and "
        "`ray start --address HOST:PORT` lets this machine join it"
    )


def _reach(address: str) -> None:
    """Raises RunError within seconds where nothing listens at HOST:PORT; Ray itself tries for long."""
    name, _, port = address.rpartition(":")
    if not name or not port.isdecimal():
        if address == "auto":
            return
        raise RunError(f"--address {address}: is no address of a Ray cluster; give HOST:PORT (6379, mostly), or auto")
    try:
        with socket.create_connection((name.strip("[]"), int(port)), REACH_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_http2(connection):
                raise OSError("what listens there is something else")
    except (OSError, OverflowError) as error:
        raise RunError(
            f"--address {address}: no Ray cluster can be reached there ({first_line(error)}); `ray start --head` "
            "prints the address of the cluster that it starts"
        ) from error


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether the other end answers HTTP/2's greeting with its settings, as all that is spoken to by gRPC does (RFC
    9113, 3.4)."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    return connection.recv(4)[3:] == b"\4"


class RayTask:
    """A cell's task."""

    def __init__(self, reference: ray.ObjectRef[NodeEnd]) -> None:
        self._reference = reference

    def wait(self, seconds: float) -> NodeEnd | Lost | None:
        """How it ended."""
        try:
            ended: NodeEnd = ray.get(self._reference, timeout=seconds)
            return ended
        except GetTimeoutError:
            return None
        except OutOfMemoryError as error:
            return Lost(f"stopped by Ray, because its node ran out of memory ({first_line(error)})", oom=True)
        except TaskCancelledError:
            return Lost("its task was cancelled")
        except (WorkerCrashedError, NodeDiedError):
            return Lost("its node was lost")
        except RayTaskError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise RunError(
                f"a node of the cluster cannot run cells ({lines[-1].strip() if lines else error}); every node needs "
                "the same Python packages as this machine"
            ) from error
        except RayError as error:
            return Lost(f"its task was lost ({first_line(error)})")

    def cancel(self) -> None:
        """Raises KeyboardInterrupt in it."""
        with contextlib.suppress(RayError):
            ray.cancel(self._reference)


class RayScheduler:
    """Cells as tasks. cpus: of each, which it computes with; GPUs: as many as it has devices, where the cluster has
    any, unless the device is the CPU."""

    def __init__(self, request: SiteRequest) -> None:
        nodes = _nodes()
        most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
        asked = request.cpus or asked_threads()
        self.cpus = asked or max(1, min(USUAL_CPUS, most))
        if self.cpus > most:
            named = "--cpus" if request.cpus else "OMP_NUM_THREADS"
            raise RunError(f"{named} {self.cpus}: no node of the Ray cluster has so many CPUs; the largest has {most}")
        self._gpus = 0 if request.device == "cpu" else int(any(node.get("GPU", 0) >= 1 for node in nodes))
        if request.device == "cuda" and not self._gpus:
            raise RunError("--device cuda: no node of the Ray cluster has a GPU; use --device cpu, or auto")
        self._oversize = request.oversize
        self._room, self._counted = 0, float("-inf")
        self._remote = ray.remote(max_retries=0)(_run)

    def room(self) -> int:
        """As many as fit on the nodes by CPUs and GPUs, and one that waits, so that the next one begins at once and an
        autoscaler sees that more are wanted."""
        if time.monotonic() - self._counted > COUNT_SECONDS:
            self._room, self._counted = 1 + sum(self._fits(node) for node in _nodes()), time.monotonic()
        return self._room

    def limits(self, found: Mapping[str, int | None]) -> dict[str, int | None]:
        """RAM of the largest node, by what it told Ray."""
        return {**found, "ram": _most_memory()}

    def check(self, needs: Mapping[str, Needs]) -> None:
        """Raises RunError where no node has the memory of a cell beside the CPUs and the GPUs."""
        for method, each in needs.items():
            gpus = self._gpus * each.devices
            wanted = f"{self.cpus} CPUs{f' and {gpus} GPU' if gpus else ''}{'s' * (gpus > 1)}"
            nodes = [node for node in _nodes() if self._fits(node) and node.get("GPU", 0) >= gpus]
            if not nodes:
                raise RunError(f"{method}: no node of the Ray cluster has {wanted}; set fewer devices, or --cpus")
            if not self._oversize and not any(node.get("memory", 0) >= each.ram for node in nodes):
                most = max((int(node.get("memory", 0)) for node in nodes), default=0)
                raise RunError(
                    f"{method}: needs about {size_text(each.ram)} of RAM beside {wanted}; the largest such node has "
                    f"{size_text(most)}; leave it out (--only), or run it all the same with --oversize"
                )

    def submit(self, task: NodeTask, needs: Needs) -> RayTask:
        """Hands the task to Ray, which waits for a node that has what it needs."""
        hosts = [node["NodeManagerHostname"] for node in _alive()]
        asked = self._remote.options(
            num_cpus=self.cpus,
            num_gpus=self._gpus * needs.devices,
            memory=min(needs.ram, _most_memory()) or None,
            name=str(task.log.stem),
        )
        return RayTask(asked.remote(task, len(set(hosts)) < len(hosts)))

    def close(self) -> None:
        """Leaves the cluster, and ends one of this machine alone."""
        ray.shutdown()

    def _fits(self, node: Mapping[str, Any]) -> int:
        by_cpus = int(node.get("CPU", 0) // self.cpus)
        return min(by_cpus, int(node.get("GPU", 0))) if self._gpus else by_cpus


def _run(task: NodeTask, same_hosts: bool) -> NodeEnd:
    """On a node. same_hosts: machines hold several nodes, whose own names tell them apart."""
    node = ray.get_runtime_context().get_node_id()[:6]
    return run_on_node(task, f"{host()}, node {node}" if same_hosts else host())


def _nodes() -> list[dict[str, Any]]:
    """{CPU, GPU, memory in bytes} of each node that is there."""
    return [dict(node["Resources"]) for node in _alive()]


def _alive() -> list[dict[str, Any]]:
    """What Ray knows of each node that is there."""
    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
    return [node for node in nodes() if node["Alive"]]


def _most_memory() -> int:
    return max((int(node.get("memory", 0)) for node in _nodes()), default=0)
