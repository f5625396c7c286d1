"""The back-end of a Slurm cluster: cells that begin together are an array job, submitted by submitit."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

from grbench.cost.limits import asked_threads
from grbench.errors import OutputClosed, RunError, Terminated, first_line
from grbench.run.backends.backend import Needs, SiteRequest
from grbench.run.backends.child_process import ForkServer
from grbench.run.backends.cluster import ClusterSite, Lost
from grbench.run.backends.on_node import NodeEnd, NodeTask, host, run_on_node

USUAL_CPUS = 4
MOST_AT_ONCE = 500
"""Cells that are submitted at once; Slurm takes 1000 in an array, where nobody has set it otherwise."""
GATHER_SECONDS = 1.0
"""Cells that are submitted within it become one array job."""
QUEUE_SECONDS = 5.0
"""Between two looks at the queue, for all jobs of this run."""
LATE_SECONDS = 20.0
"""How long a result may stay unseen that a job has written on another machine."""
REACH_SECONDS = 20.0
GIB = 1 << 30
MARGIN, MARGIN_BYTES = 1.25, GIB // 2
"""More memory than the forecast says, because Slurm kills a job that takes more than it asked for. Whole GiB are asked
for, so that cells that need about the same are one array job."""
NEVER = ("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints")
"""Why a job stays in the queue that asks for what nothing there has; Slurm takes it all the same."""
GPU_OPTIONS = ("gres", "gpus", "gpus_per_node", "gpus_per_task")


def slurm_site(request: SiteRequest, server: ForkServer, *, note: Callable[[str], None]) -> ClusterSite:
    """The cluster of this machine's Slurm. Raises RunError where there is none, or its controller does not answer."""
    return ClusterSite(request, SlurmScheduler(request, note), server.modules)


@dataclass
class _Waiting:
    """A task that is to be submitted; the job is known once its array is."""

    task: NodeTask
    needs: Needs
    job: Future[submitit.Job[NodeEnd | Lost]] = field(default_factory=Future)


class SlurmScheduler:
    """Cells as jobs. cpus: of each."""

    def __init__(self, request: SiteRequest, note: Callable[[str], None]) -> None:
        self.cpus = request.cpus or asked_threads() or USUAL_CPUS
        self._options = _options(request.options)
        self._note, self._device = note, request.device
        self._lock, self._waiting = threading.Lock(), list[_Waiting]()
        self._queue, self._looked, self._look_lock = dict[str, str](), 0.0, threading.Lock()
        self._failed = False
        logging.getLogger("submitit").setLevel(logging.ERROR)
        for command in ("sbatch", "srun", "squeue", "scancel"):
            if shutil.which(command) is None:
                raise RunError(f"--backend slurm: {command} is not found; start the run on a login node of the cluster")
        self._look()
        self._folder = Path(os.path.abspath(request.folder)) / f"slurm-{uuid.uuid4().hex[:8]}"

    def room(self) -> int:
        """Slurm's queue holds what cannot run yet."""
        return MOST_AT_ONCE

    def limits(self, found: Mapping[str, int | None]) -> dict[str, int | None]:
        """What the largest node has, Slurm knows, and refuses a job that asks for more."""
        return {**found, "ram": None}

    def check(self, needs: Mapping[str, Needs]) -> None:
        """Slurm checks a job when it is submitted."""

    def submit(self, task: NodeTask, needs: Needs) -> SlurmTask:
        """The first of those that come together submits them all."""
        waiting = _Waiting(task, needs)
        with self._lock:
            self._waiting.append(waiting)
            first = len(self._waiting) == 1
        if first:
            time.sleep(GATHER_SECONDS)
            with self._lock:
                together, self._waiting = self._waiting, []
            self._submit_all(together)
        return SlurmTask(self, waiting.job.result(), task)

    def in_queue(self, job: str) -> bool:
        """Whether Slurm still has the job. Raises RunError where it will never begin."""
        with self._look_lock:
            if time.monotonic() - self._looked > QUEUE_SECONDS:
                self._looked = time.monotonic()  # also where it fails, so that not every cell waits for an answer
                with contextlib.suppress(RunError):  # the controller is away for a while, and no job ends by that
                    self._look()
            if (reason := self._queue.get(job)) in NEVER:
                raise RunError(
                    f"Slurm job {job} would wait for ever, because nothing there has what it asks for ({reason}: see "
                    "sinfo); --cpus and --scheduler say what that is"
                )
            return reason is not None

    def keep(self) -> Path:
        """Has the folder of the jobs stay, whose logs say what went wrong."""
        self._failed = True
        return self._folder

    def close(self) -> None:
        """Removes what submitit has written, all of which is in the records and their logs."""
        if not self._failed:
            shutil.rmtree(self._folder, ignore_errors=True)  # there is none where no job was submitted

    def _look(self) -> None:
        command = ["squeue", "--me", "--array", "--noheader", "--format=%i %r"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=REACH_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise RunError(
                f"Slurm's controller has not answered for {REACH_SECONDS:.0f} s; see scontrol ping"
            ) from error
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if line.strip()]
            raise RunError(
                f"Slurm's controller cannot be reached ({lines[-1] if lines else error}); see scontrol ping"
            ) from error
        jobs = (line.partition(" ") for line in said.stdout.splitlines())
        self._queue, self._looked = {job: reason.strip() for job, _, reason in jobs}, time.monotonic()

    def _submit_all(self, together: list[_Waiting]) -> None:
        """An array job for all that need the same. What goes wrong is raised by all who wait for it."""
        asked = [(self._resources(each.needs), each) for each in together]
        for resources, group in groupby(sorted(asked, key=lambda each: str(each[0])), key=lambda each: each[0]):
            alike = [each for _, each in group]
            try:
                jobs = self._array([each.task for each in alike], resources)
            except BaseException as error:  # noqa: BLE001 - `submit` raises it
                for each in alike:
                    each.job.set_exception(error)
                continue
            for each, job in zip(alike, jobs, strict=True):
                each.job.set_result(job)
            if len(jobs) > 1:
                with contextlib.suppress(OutputClosed):  # the run notices by itself; its cells are followed until then
                    self._note(f"Slurm job {jobs[0].job_id.partition('_')[0]}: an array of {len(jobs)} cells")

    def _array(self, tasks: Sequence[NodeTask], resources: Mapping[str, Any]) -> list[submitit.Job[NodeEnd | Lost]]:
        """Their jobs. Raises RunError where Slurm does not take them."""
        try:
            executor = submitit.SlurmExecutor(self._folder)
            executor.update_parameters(
                job_name="grbench",
                time=None,  # the partition's own, but for --scheduler time=...
                cpus_per_task=self.cpus,
                srun_args=[f"--cpus-per-task={self.cpus}"],  # srun does not take it over any more
                stderr_to_stdout=True,
                additional_parameters=resources,
            )
            jobs: list[submitit.Job[NodeEnd | Lost]] = executor.submit_array([partial(_run, each) for each in tasks])
        except (FailedSubmissionError, FailedJobError, OSError, subprocess.CalledProcessError) as error:
            raise RunError(
                f"Slurm does not take the job: {_reason(error)}; --cpus and --scheduler say what it asks for"
            ) from error
        with self._look_lock:  # until the next look they count as being there
            self._queue |= {job.job_id: "" for job in jobs}
            self._looked = time.monotonic()
        return jobs

    def _resources(self, needs: Needs) -> dict[str, Any]:
        """For sbatch, besides the CPUs."""
        asked: dict[str, Any] = {}
        if needs.ram:
            asked["mem"] = f"{math.ceil((MARGIN * needs.ram + MARGIN_BYTES) / GIB)}G"
        if self._device == "cuda" and not any(key in self._options for key in GPU_OPTIONS):
            asked["gpus_per_node"] = needs.devices
        return asked | self._options


class SlurmTask:
    """A cell's job."""

    def __init__(self, scheduler: SlurmScheduler, job: submitit.Job[NodeEnd | Lost], task: NodeTask) -> None:
        self._scheduler, self._job, self._task = scheduler, job, task
        self._gone: float | None = None

    def wait(self, seconds: float) -> NodeEnd | Lost | None:
        """How it ended."""
        deadline = time.monotonic() + seconds
        while True:
            os.listdir(self._job.paths.folder)  # has a network's file system show what is new
            if self._job.paths.result_pickle.exists():
                return self._result()
            if self._scheduler.in_queue(self._job.job_id):
                self._gone = None
            elif self._gone is None:
                self._gone = time.monotonic()
            elif time.monotonic() - self._gone > LATE_SECONDS:
                return self._vanished()
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(0.5, left))

    def cancel(self) -> None:
        """Slurm sends SIGTERM to what runs, which stops it as Ctrl-C does."""
        with contextlib.suppress(OSError):
            self._job.cancel(check=False)

    def _result(self) -> NodeEnd | Lost:
        try:
            result: NodeEnd | Lost = self._job.result()
            return result
        except (FailedJobError, UncompletedJobError) as error:
            folder = self._scheduler.keep()
            lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
            said = next((line for line in reversed(lines) if "Error" in line), lines[-1])
            raise RunError(
                f"a node of the cluster cannot run cells ({said}); every node needs the same Python packages as this "
                f"machine; see {folder}"
            ) from error

    def _vanished(self) -> Lost:
        """Raises RunError where it never began, as no other cell would."""
        number = self._job.job_id
        if self._task.events.exists():
            return Lost(f"Slurm job {number} ended without a result, as one does whose node is lost")
        folder = self._scheduler.keep()
        raise RunError(
            f"Slurm job {number} ended before it could begin: its node does not see {folder}, so the folder is not "
            f"shared by all nodes (choose --results on a file system that they share), or it does not have "
            f"{sys.executable}; `scontrol show job {number}` says more, as may {self._job.paths.stdout}"
        )


def _run(task: NodeTask) -> NodeEnd | Lost:
    """On a node. Slurm announces the end of a job's time, and that another job is to have its place, by signals."""

    def stop(*_: object) -> None:
        raise Terminated

    for each in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(each, stop)
    try:
        return run_on_node(task, host())
    except KeyboardInterrupt:
        return Lost(f"Slurm stopped it on {host()}, at the end of its time or for another job")


def _options(said: Sequence[str]) -> dict[str, Any]:
    """{key: value} for sbatch. Raises RunError where one is not KEY=VALUE."""
    options = {}
    for each in said:
        key, sign, value = each.partition("=")
        if not sign or not key.strip("-"):
            raise RunError(f"--scheduler {each}: is not KEY=VALUE, an option of sbatch, as partition=gpu")
        options[key.strip("-").replace("-", "_")] = value
    return options


def _reason(error: Exception) -> str:
    """What sbatch said, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if "sbatch: error:" in line]
    return lines[-1].rpartition("sbatch: error: ")[2] if lines else first_line(error)
