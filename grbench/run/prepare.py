"""Before any cell runs: the store is built once, the protocol tried on it, and memory planned.

A child does it (`main`), so that the memory that reading a dataset takes is given back before training.
"""

from __future__ import annotations

import re
import shutil
import signal
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from grbench import errors
from grbench.cache import cache_folder
from grbench.errors import DataError, GRBenchError, RunError, SuiteError
from grbench.interfaces import Dataset, Retriever, Tokenizer, optional
from grbench.report.format import size_text
from grbench.run.backends.child_process import ChildMessages
from grbench.suite.method import METHOD_KEYS

if TYPE_CHECKING:
    from grbench.data.split import Split
    from grbench.data.store import Store
    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry
    from grbench.suite.method import Method

REFUSED = 2
"""Exit status where the request was wrong; the event `refused` says why."""


PLANNING_SECONDS = 120
"""After which what is not planned by then is left unknown."""


def disk_text(dataset: object, cache: Path, *, oversize: bool) -> str:
    """What the store of a dataset that is not prepared yet will take; raises RunError where the disk is too small."""
    how = "memory is known once the data is prepared: grbench run SUITE prepares it\n"
    if (needed := optional(dataset, Dataset.store_bytes)()) is None:
        return f"Disk: the data is not prepared, and its dataset does not say how large it gets; {how}"
    existing = next(folder for folder in (cache, *cache.resolve().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free and not oversize:
        raise RunError(
            f"the store will take about {size_text(needed)} in {cache}, where {size_text(free)} are free: free some, "
            "set GRBENCH_CACHE to a larger disk, or try it with --oversize"
        )
    return f"Disk: the data is not prepared, it will take about {size_text(needed)} in {cache}; {how}"


def split_store(store: Store, protocol: Component, registry: Registry) -> Split:
    """The protocol's split of the store; raises DataError where it leaves nobody to train on or to evaluate."""
    split: Split = registry.build("protocols", protocol).split(store)
    return split


def resolve_device(device: str) -> str:
    """`auto` is cuda where there is one, else cpu; raises RunError where cuda is asked for and absent."""
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise RunError("--device cuda: torch sees no CUDA device here; use --device cpu, or auto to take what there is")
    return device if device != "auto" else ("cuda" if available else "cpu")


def gpu_sizes(device: str) -> list[int]:
    """Bytes of memory of each GPU that cells may use, in CUDA's order; empty where they run on the CPU."""
    import torch

    count = torch.cuda.device_count() if torch.device(device).type == "cuda" else 0
    return [int(torch.cuda.get_device_properties(place).total_memory) for place in range(count)]


@dataclass(frozen=True)
class Prepared:
    """What the cells share. cache: of the machine that has prepared it; process: bytes that a process takes with this
    split and nothing else."""

    store: Store
    cache: Path
    split: Split
    device: str
    process: int

    def to_json(self) -> dict[str, Any]:
        """What is sent to the parent."""
        return {
            "store": str(self.store.path),
            "place": place_of_store(self.store.path, self.cache),
            "device": self.device,
            "gpus": gpu_sizes(self.device),
            "pool": {"size": len(self.split.candidates), "digest": self.split.pool_digest},
            "counts": self.split.counts,
            "remarks": list(self.store.remarks),
        }


def place_of_store(store: Path, cache: Path) -> str:
    """Where any machine has the store: below its own cache, or where it lies on a file system that they share."""
    return store.relative_to(cache).as_posix() if store.is_relative_to(cache) else str(store)


def prepare(job: Mapping[str, Any], events: ChildMessages) -> Prepared:
    """Builds or finds the store and tries the protocol. job: {cell, cache: None = this machine's own,
    device, filters: every method's, validates: whether any method selects by validation users, suite: its file,
    methods: a cell of each}.
    Raises GRBenchError where the request cannot be met.
    """
    from grbench.evaluation.filters import filtered_candidates
    from grbench.evaluation.scoring import check_metrics
    from grbench.registry.discovery import Registry
    from grbench.run.data_source import build_dataset, copying_events
    from grbench.run.label_users import check_slices
    from grbench.run.shared_store import shared_store
    from grbench.suite.suite import Cell

    cell = Cell.from_json(job["cell"])
    device = resolve_device(job["device"])
    registry = Registry.load()
    cache = cache_folder(Path(job["cache"]) if job["cache"] else None)
    copying = copying_events(partial(events, "prepare"))
    dataset = build_dataset(registry, cell.dataset, cache=cache, copying=copying)
    trains = any(method.stages for method in _methods(job))
    if trains:
        _settle(device)
    bare, _ = _resident()
    store = shared_store(
        dataset,
        cell.dataset,
        registry,
        cache=cache,
        report=lambda what, done, total: events("prepare", what=what, done=done, total=total),
        wait=lambda holder: events("phase", name=f"waiting: {holder}"),
        copying=copying,
    )
    events("phase", name="splitting users")
    _, before = _resident()
    split = split_store(store, cell.protocol, registry)
    if trains:
        split.training.item_counts()  # kept by the split, and asked for by whatever learns
    for filters in job["filters"]:
        filtered_candidates(split, cell.list_length, filters)
    if job["validates"] and split.validation is None:
        raise SuiteError(
            "training.validate_every: the protocol keeps no validation users to select by; give it some "
            "by the options of the protocol, or set validate_every to null"
        )
    for note in _large_samples(job, split):
        events("note", text=note)
    metrics = [registry.build("metrics", each) for each in cell.metrics]
    check_metrics(metrics, split, cell.list_length)
    check_slices(cell.slices, split, registry)
    for method in _methods(job):
        with placed(f"{job['suite']}: methods.{method.name}"):
            check_method(method, registry, split, cell.list_length)
    return Prepared(store, cache, split, device, bare + max(0, _resident()[1] - before))


def check_method(method: Method, registry: Registry, split: Split, k: int) -> None:
    """Asks the method's stages, tokenizer and retriever whether they go with the data and with each other.

    Raises SuiteError or DataError where they do not. What else a plug-in raises, its own cell will say.
    """
    from grbench.evaluation.filters import filtered_candidates

    for place, stage in enumerate(method.stages):
        if stage.targets is not None:
            split.training.with_targets(stage.targets, f"stages.{place}.targets")
    try:
        tokenizer = registry.build("tokenizers", method.tokenizer)
        retriever = registry.build("retrievers", method.retriever)
        codes = optional(tokenizer, Tokenizer.stand_in)(split.training)
        optional(retriever, Retriever.check)(len(filtered_candidates(split, k, method.filters)), codes)
    except (SuiteError, DataError):
        raise
    except Exception:  # noqa: BLE001 - a plug-in may raise anything
        traceback.print_exc()


@contextmanager
def placed(where: str) -> Iterator[None]:
    """What is wrong with a method is said with its place in the suite."""
    try:
        yield
    except (SuiteError, DataError) as error:
        key = re.match(rf"({'|'.join(METHOD_KEYS)})\.", str(error))
        raise type(error)(f"{where}{'.' if key else ': '}{error}") from error


def plan_methods(job: Mapping[str, Any], prepared: Prepared, events: ChildMessages) -> None:
    """Says what memory each trained method of the job will take. It runs their plug-ins, so it must not keep anybody
    waiting or cost more than the plan: it ends with its process, `PLANNING_SECONDS` from now.

    Raises SuiteError or DataError where an encoder or a loss says that it was asked for what cannot be.
    """
    from grbench.registry.discovery import Registry
    from grbench.run.memory_plan import MemoryPlan
    from grbench.run.memory_trial import MappedColumns, memory_limits, plan_memory
    from grbench.run.warm_up import long_warm_ups

    if hasattr(signal, "alarm"):
        signal.alarm(PLANNING_SECONDS)
    registry, mapped = Registry.load(), MappedColumns(prepared.store)
    for method in _methods(job):
        for sentence in long_warm_ups(method, registry, prepared.split):
            events("note", text=f"{job['suite']}: {sentence}")
    ram, gpu = memory_limits(prepared.device)
    events("limits", ram=ram, gpu=gpu)
    for method in _methods(job):
        if not method.stages:
            continue
        events("phase", name=f"planning memory of {method.name}")
        try:
            with placed(f"{job['suite']}: methods.{method.name}"):
                plan = plan_memory(
                    method, registry, prepared.split, device=prepared.device, process=prepared.process, mapped=mapped
                )
        except (SuiteError, DataError):
            raise
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; its own cell will say so
            reason = str(error) if isinstance(error, GRBenchError) else f"{type(error).__name__}: {error}"
            plan = MemoryPlan(method.name, 0, False, unknown=reason)
        events("planned", plan=plan.to_json())


def _methods(job: Mapping[str, Any]) -> list[Method]:
    from grbench.suite.suite import Cell

    return [Cell.from_json(content).method for content in job["methods"]]


def _large_samples(job: Mapping[str, Any], split: Split) -> Iterator[str]:
    """A note on each stage that would validate on a larger sample than there are validation users."""
    there = 0 if split.validation is None else len(split.validation)
    for method in _methods(job):
        for number, stage in enumerate(method.stages):
            asked = stage.training.get("validation_users")
            if asked is not None and asked > there:
                key = f"{job['suite']}: methods.{method.name}.{method.training_key(number)}.validation_users"
                yield f"{key}: {asked:,} are more than the {there:,} validation users; all of them are scored"


def _settle(device: str) -> None:
    """Loads what a first training step loads, so that it counts as the process's and not as some method's."""
    import pyarrow.parquet  # noqa: F401 - every cell writes its lists with it
    import torch

    layer = torch.nn.Linear(1, 1, device=device)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 1, device=device)).sum().backward()
    optimizer.step()


def _resident() -> tuple[int, int]:
    """Bytes of this process in memory, and those of them that are no pages of files."""
    memory = psutil.Process().memory_info()
    return memory.rss, memory.rss - getattr(memory, "shared", 0)


def refusal(event: Mapping[str, Any]) -> GRBenchError:
    """The error that a child's event `refused` speaks of."""
    kind = getattr(errors, str(event["kind"]), RunError)
    error: GRBenchError = kind(event["message"])
    return error


def main(job: Mapping[str, Any], events: ChildMessages) -> int:
    """The child; exit status 2 where the request cannot be met. Memory is planned once all else is said."""
    try:
        prepared = prepare(job, events)
    except GRBenchError as error:
        events("refused", kind=type(error).__name__, message=str(error))
        return REFUSED
    events("prepared", **prepared.to_json())
    try:
        plan_methods(job, prepared, events)
    except GRBenchError as error:
        events("refused", kind=type(error).__name__, message=str(error))
        return REFUSED
    return 0
