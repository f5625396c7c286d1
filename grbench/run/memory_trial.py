"""How much memory a cell will take, by part, before it runs: its modules are built with untouched memory, one small
training step is made and watched, and what grows with the batch is scaled to the batch asked for.

Nothing is known of a method here but its kinds: encoders, losses and optimizers as torch's modules and optimizers;
retrievers and tokenizers by their optional methods `index_bytes` and `stand_in`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from inspect import isfunction
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn.modules.sparse import Embedding, EmbeddingBag

from grbench.data.split import Split
from grbench.data.store import Store
from grbench.data.training_data import TrainingData
from grbench.interfaces import Embedder, Loss, Retriever, Tokenizer, optional
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.run.live_memory import LiveBytes, Unfilled
from grbench.run.memory_plan import MemoryPlan
from grbench.suite.method import Method, Stage
from grbench.training.loop import batches_of, examples_of
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainState
from grbench.types import Batch

FIRST_TRIAL = 8
"""Users of the first step that is watched."""
TRIAL_SECONDS = 0.5
"""How long a step with more users may be expected to take; what lies beyond is scaled from two smaller ones."""
LONGEST_SECONDS = 4.0
"""After a step that takes longer, none is tried in any case."""
SHARE_TRIED = 0.5
"""Of the memory that is free: a trial that would take more is not made."""
SHRUNK = 1 << 16
"""Numbers of a parameter that the optimizer is tried on."""


@dataclass(frozen=True)
class _Step:
    """What one watched step of `users` took."""

    users: int
    seconds: float
    encoder: int
    losses: int
    gradients: int

    @property
    def taken(self) -> int:
        """Bytes of all that it made, at least 1."""
        return max(1, self.encoder + self.losses + self.gradients)


@dataclass(frozen=True)
class Mapped:
    """A store's columns in memory: pages that the system can have back, which are no part of RAM that is needed.

    read: bytes of those that every cell reads; columns: {address: bytes} of those that a module may hold.
    """

    read: int = 0
    columns: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> Mapped:
        """Events and their offsets are read whole; of features and embeddings, what a module wants."""
        events = (store.offsets, store.items, store.actions, store.times, store.candidates)
        catalogue = store.catalogue
        columns = [catalogue.item_features.values, catalogue.user_features.values]
        columns += [column for each in catalogue.embeddings.values() for column in (each.values, each.present)]
        return cls(
            read=sum(column.nbytes for column in events if column is not None),
            columns={column.ctypes.data: column.nbytes for column in columns},
        )

    def under(self, buffer: Tensor) -> int | None:
        """The address of the column that a buffer lies in; None where it has memory of its own."""
        place = buffer.data_ptr()
        return next((start for start, size in self.columns.items() if start <= place < start + size), None)

    def bytes_with(self, module: nn.Module) -> int:
        """Of all that is read where this module is trained. What a tokenizer reads of embeddings is not in it."""
        held = {self.under(each) for each in module.buffers()}
        return self.read + sum(size for start, size in self.columns.items() if start in held)


def plan_memory(
    method: Method, registry: Registry, split: Split, *, device: str, process: int, mapped: Mapped
) -> MemoryPlan:
    """The plan of a trained method, of the stage that takes most where it has several. process: bytes of the process
    with its split; mapped: the store's columns. Raises whatever a plug-in raises.
    """
    plans = []
    for place, stage in enumerate(method.stages):
        data, key = split.training, method.training_key(place)
        if stage.targets is not None:
            data = data.with_targets(stage.targets, f"stages.{place}.targets")
        plan = _plan_stage(
            method, stage, registry, replace(split, training=data), device=device, process=process, mapped=mapped
        )
        plans.append(replace(plan, key=key))
    return max(plans, key=lambda plan: (plan.gpu_bytes, plan.ram_bytes))


def _plan_stage(
    method: Method,
    stage: Stage,
    registry: Registry,
    split: Split,
    *,
    device: str,
    process: int,
    mapped: Mapped,
) -> MemoryPlan:
    options, data = TrainingOptions(**stage.training), split.training
    on_gpu = torch.device(device).type == "cuda"
    tokenizer = _build(registry, "tokenizers", method.tokenizer)
    codes = optional(tokenizer, Tokenizer.stand_in)(data)
    if codes is None:
        why = f"the tokenizer {method.tokenizer.name} has to be fitted first (its `stand_in` gives nothing)"
        return MemoryPlan(method.name, options.batch_size, on_gpu, unknown=why)
    with Unfilled():
        encoder = _build(registry, "encoders", method.encoder, data, codes)
        losses = [(_build(registry, "losses", loss, data, codes), weight) for loss, weight in stage.losses]
    for loss, _ in losses:
        optional(loss, Loss.grow)()
    # Without an optimizer a step leaves the gradients that it makes. Compiled, it could not be watched.
    state = TrainState(
        encoder,
        losses,
        _build(registry, "trainers", stage.trainer),
        lambda _: (),
        replace(options, compile=False),
        data=data,
        codes=codes,
        device=device,
        seed=0,
        name=stage.name,
    )
    module = state.modules
    parameters, tables = _bytes_of(module.parameters()), _bytes_of(_tables(module))
    known = {"tables": tables, "other parameters": parameters - tables}
    known["catalogue"] = _bytes_of(each for each in module.buffers() if on_gpu or mapped.under(each) is None)
    mapped_bytes = mapped.bytes_with(module)
    host = {"process": process, "codes": codes.table.nbytes, "loader": _loader_bytes(encoder, options, data)}
    if options.validate_every:
        host["best state"] = _bytes_of(encoder.parameters())
    fixed: dict[str, int] = {}
    unknown, steps = "", []
    free = int(SHARE_TRIED * _free_bytes(device))
    if 2 * parameters + known["catalogue"] * on_gpu < free:
        module.to(device)
        known["index"], lacking = _index_bytes(registry, method, encoder, split, device)
        try:
            steps = _watch_steps(state, limit=free - parameters)
        except (MemoryError, torch.OutOfMemoryError):
            lacking = f"a step of {FIRST_TRIAL} users alone takes more than half of the memory that is free"
        unknown = lacking
    else:
        unknown = "the parameters alone are too large to try a step"
    if steps:
        known |= _scaled(steps, options.batch_size)
        fixed = _scaled(steps, 0)
    known.setdefault("gradients", _bytes_of(module.parameters()))
    known["optimizer state"] = _optimizer_bytes(registry, stage.optimizer, module)
    return MemoryPlan(
        method.name,
        options.batch_size,
        on_gpu,
        device=known,
        host=host,
        fixed=fixed,
        mapped=mapped_bytes,
        unknown=unknown,
        state_while_searching=bool(options.validate_every),
    )


def memory_limits(device: str) -> tuple[int, int | None]:
    """RAM that this process may have at most, its control group's limit included, and the GPU's memory."""
    ram = psutil.virtual_memory().total
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        with suppress(OSError, ValueError):
            ram = min(ram, int(path.read_text()))
    on_gpu = torch.device(device).type == "cuda"
    return ram, torch.cuda.get_device_properties(device).total_memory if on_gpu else None


def _watch_steps(state: TrainState, *, limit: int) -> list[_Step]:
    """The last two steps of a few, each larger than the one before, up to the size asked for."""
    options = state.options
    state.begin()
    state.train()
    examples = examples_of(state)
    steps: list[_Step] = []
    users = min(FIRST_TRIAL, options.batch_size)
    while True:
        state.options = replace(options, batch_size=users, workers=0)
        batch = next(batches_of(state, examples))
        steps.append(_watch(state, batch.to(state.device), limit))
        if users == options.batch_size or (len(steps) > 1 and _enough(steps[-2], steps[-1], limit)):
            break
        last = steps[-1]
        growth = min(TRIAL_SECONDS / max(last.seconds, 1e-6), limit / last.taken / 2)
        if len(steps) > 1 and not _shows_users(steps[-2], steps[-1]):
            growth = max(growth, 4)
        users = min(options.batch_size, int(users * max(growth, 2)))
    return steps[-2:]


def _enough(before: _Step, last: _Step, limit: int) -> bool:
    """Whether no larger step is to be tried: because it would take too much, or these two already say what it takes."""
    if 2 * 2 * last.taken > limit or last.seconds > LONGEST_SECONDS:
        return True
    return last.seconds > TRIAL_SECONDS and _shows_users(before, last)


def _shows_users(before: _Step, last: _Step) -> bool:
    """Whether memory has grown by half as much as the users: a catalogue of millions takes the same in every step, and
    what few users take is hidden below it."""
    more = last.users / before.users - 1
    return last.encoder + last.losses >= (1 + more / 2) * (before.encoder + before.losses)


def _watch(state: TrainState, batch: Batch, limit: int) -> _Step:
    encoder = state.encoder
    kind, known = type(encoder), set(dir(nn.Module))
    methods = [name for name in dir(kind) if name[0] != "_" and name not in known and isfunction(getattr(kind, name))]
    state.steps, state.step = state.options.accumulate, 1
    began = time.perf_counter()
    with LiveBytes(limit) as live:
        for name in methods:  # what the encoder makes is told from what the losses make of it
            setattr(encoder, name, _under(live, "encoder", getattr(encoder, name)))
        state.backward = _under(live, "backward", state.backward)  # type: ignore[method-assign]
        try:
            with live.named("losses"):
                state.trainer.step(state, batch)
        finally:
            for name in methods:
                delattr(encoder, name)
            del state.backward
            state.step = 0
    seconds = time.perf_counter() - began
    gradients = [each.grad for each in state.modules.parameters() if each.grad is not None]
    peak = live.peak(without=gradients)
    step = _Step(
        users=len(batch.users),
        seconds=seconds,
        encoder=peak.get("encoder", 0) + peak.get("backward", 0),
        losses=peak.get("losses", 0),
        gradients=sum(_stored_bytes(gradient) for gradient in gradients),
    )
    state.modules.zero_grad(set_to_none=True)
    return step


def _under(live: LiveBytes, name: str, method: Any) -> Any:
    def watched(*args: Any, **options: Any) -> Any:
        with live.named(name):
            return method(*args, **options)

    return watched


def _scaled(steps: list[_Step], users: int) -> dict[str, int]:
    """The line through two steps, or through one and nothing, at so many users."""
    last = steps[-1]
    first = steps[0] if len(steps) > 1 else _Step(0, 0.0, 0, 0, last.gradients)

    def at(part: str) -> int:
        high = getattr(last, part)
        slope = max(0.0, (high - getattr(first, part)) / (last.users - first.users))
        return max(0, int(high + slope * (users - last.users)))

    return {"gradients": at("gradients"), "activations": at("encoder"), "logits": at("losses")}


def _optimizer_bytes(registry: Registry, component: Component, module: nn.Module) -> int:
    """Bytes of the optimizers' states, from one step on a few rows of each parameter, which is all that is left."""
    rows = {}
    bags = [child for child in module.modules() if isinstance(child, Embedding | EmbeddingBag)]
    sparse = {child.weight for child in bags if child.sparse}
    for parameter in module.parameters():
        rows[parameter] = len(parameter) if parameter.ndim else 1
        each = max(1, parameter.numel() // max(rows[parameter], 1))
        if parameter.numel() > SHRUNK:
            parameter.data = parameter.data[: max(1, SHRUNK // each)].clone()
    optimizers = _build(registry, "optimizers", component, module)
    for parameter in module.parameters():
        if parameter.requires_grad:
            gradient = torch.zeros_like(parameter)
            parameter.grad = gradient.to_sparse(1) if parameter in sparse else gradient
    total = 0
    for optimizer in optimizers:
        optimizer.step()
        for parameter, state in optimizer.state.items():
            for tensor in (each for each in state.values() if isinstance(each, Tensor)):
                grows = tensor.ndim > 0 and len(tensor) == len(parameter)
                total += tensor.nbytes * rows[parameter] // len(parameter) if grows else tensor.nbytes
    return total


@torch.no_grad()
def _index_bytes(registry: Registry, method: Method, encoder: Any, split: Split, device: str) -> tuple[int, str]:
    """Bytes of the candidates in the retriever; where they cannot be known, 0 and why."""
    retriever = _build(registry, "retrievers", method.retriever)
    if not isinstance(encoder, Embedder):
        return 0, f"the index of {method.retriever.name} is not in it"
    encoder.eval()  # type: ignore[attr-defined]
    width = encoder.embed_items(torch.from_numpy(split.candidates[:FIRST_TRIAL]).to(device)).shape[1]
    pool = len(split.candidates)
    known = optional(retriever, Retriever.index_bytes)(pool, width)
    if known is None and Embedder not in type(retriever).needs:
        return 0, f"the index of {method.retriever.name} is not in it"
    return pool * 8 + (pool * width * 4 if known is None else known), ""


def _loader_bytes(encoder: Any, options: TrainingOptions, data: TrainingData) -> int:
    """Batches read ahead, what a worker holds while it makes one: about another two, and the order of the users."""
    batch = 5 * 8 * options.batch_size * (int(encoder.history_length) + 1)
    return batch * (2 * options.workers + 2) + 2 * batch * max(options.workers, 1) + 8 * len(data.trainable)


def _tables(module: nn.Module) -> set[Tensor]:
    return {child.weight for child in module.modules() if isinstance(child, Embedding | EmbeddingBag)}


def _bytes_of(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _stored_bytes(gradient: Tensor) -> int:
    if not gradient.is_sparse:
        return gradient.nbytes
    return gradient._indices().nbytes + gradient._values().nbytes


def _free_bytes(device: str) -> int:
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(psutil.virtual_memory().available, memory_limits(device)[0])


def _build(registry: Registry, kind: str, component: Component, *runtime_objects: object) -> Any:
    where = f"{kind} {component.name}"
    return registry.build(kind, component, *runtime_objects, where=where)
