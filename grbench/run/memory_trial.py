"""How much memory a method will take, by part, before it runs: its modules are built with untouched memory, and its
trainer makes a few small steps, which are watched. What grows with the batch lies on a line through the last two.

Nothing is known of a method here but its kinds: encoders, losses and optimizers as torch's modules and optimizers,
retrievers and tokenizers by their optional methods `index_bytes` and `stand_in`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn.modules.sparse import Embedding, EmbeddingBag
from torch.optim import Optimizer

from grbench.cost.limits import memory_limit
from grbench.data.batches import training_batches
from grbench.data.split import Split
from grbench.data.store import Store
from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import Rehearsal
from grbench.distributed.row_table import divide_tables
from grbench.encoder_shapes import check_shapes
from grbench.interfaces import Embedder, Loss, Retriever, Tokenizer, optional
from grbench.registry.attributes import history_length
from grbench.registry.discovery import Registry
from grbench.run.live_memory import LiveBytes, Unfilled, peak
from grbench.run.memory_plan import MemoryPlan
from grbench.suite.method import Method
from grbench.training.loop import examples_of
from grbench.training.options import TrainingOptions
from grbench.training.stages import losses_of, targets_of
from grbench.training.state import TrainingResult, TrainState

FIRST_TRIAL = 3
"""Users of the first step that is watched; each later one has four times as many and one more, so that tensors of two
steps are hardly as large as each other unless they have nothing to do with the users."""
LONGEST_SECONDS = 1.0
"""A third or later step that is expected to take longer is not made."""
SHARE_TRIED = 0.5
"""Of the memory that is free: what parameters and a step may take."""
SHRUNK = 1 << 16
"""Numbers of a parameter that the optimizer is tried on."""


class MappedColumns:
    """A store's columns in memory: pages that the system can have back, which are no part of RAM that is needed."""

    def __init__(self, store: Store) -> None:
        """Every cell reads all events; of features and embeddings, what its modules hold."""
        events = (store.offsets, store.items, store.actions, store.times, store.candidates)
        self.read = sum(column.nbytes for column in events if column is not None)
        catalogue = store.catalogue
        columns = [catalogue.item_features.values, catalogue.user_features.values]
        columns += [column for each in catalogue.embeddings.values() for column in (each.values, each.present)]
        self.addresses = [range(each.ctypes.data, each.ctypes.data + each.nbytes) for each in columns]

    def sizes_of(self, buffers: Sequence[Tensor]) -> tuple[int, int]:
        """Bytes of the buffers that have memory of their own; of the events and of the columns that others lie in."""
        places = [buffer.data_ptr() for buffer in buffers]
        held = [column for column in self.addresses if any(place in column for place in places)]
        own = [each.nbytes for each in buffers if not any(each.data_ptr() in column for column in held)]
        return sum(own), self.read + sum(map(len, held))


@dataclass(frozen=True)
class _Step:
    """A step that was watched. gradients: bytes of those that it left; changes: what it made and freed (LiveBytes)."""

    users: int
    seconds: float
    gradients: int
    changes: Sequence[int]


def plan_memory(
    method: Method, registry: Registry, split: Split, *, device: str, process: int, mapped: MappedColumns
) -> MemoryPlan:
    """The plan of a trained method, on each of its devices, of the stage that takes most where it has several.

    process: bytes of the process with its split. Raises whatever a plug-in raises.
    """
    plan = partial(_plan_stage, method, registry, split, device=device, process=process, mapped=mapped)
    return max(map(plan, range(len(method.stages))), key=lambda plan: (plan.gpu_bytes, plan.ram_bytes))


def _plan_stage(
    method: Method, registry: Registry, split: Split, place: int, *, device: str, process: int, mapped: MappedColumns
) -> MemoryPlan:
    stage, on_gpu, devices = method.stages[place], torch.device(device).type == "cuda", method.devices
    whole = TrainingOptions(**stage.training)
    options = replace(whole, batch_size=-(-whole.batch_size // devices))
    data = targets_of(stage, split.training, f"stages.{place}.targets")
    plan = partial(MemoryPlan, method.name, whole.batch_size, on_gpu, key=method.training_key(place), devices=devices)
    codes = optional(registry.build("tokenizers", method.tokenizer), Tokenizer.stand_in)(data)
    if codes is None:
        return plan(
            unknown=f"the tokenizer {method.tokenizer.name} has to be fitted first (its `stand_in` gives nothing)"
        )
    with Unfilled():
        encoder = registry.build("encoders", method.encoder, data, codes)
        divide_tables(encoder, method.shard_tables, Rehearsal(size=devices))
        losses = losses_of(stage, registry, data, codes, "cpu")
    for loss, _ in losses:
        optional(loss, Loss.grow)()
    state = TrainState(
        encoder,
        losses,
        registry.build("trainers", stage.trainer),
        lambda _: (),  # without optimizers a step leaves its gradients, and updates nothing
        replace(options, compile=False),  # what is compiled cannot be watched
        data=data,
        codes=codes,
        device=device,
        seed=0,
        name=stage.name,
        finished=[TrainingResult()] * place,  # losses and trainers may depend on the stage's number
    )
    own, mapped_bytes = mapped.sizes_of(list(state.modules.buffers()))
    catalogue = _bytes_of(state.modules.buffers()) if on_gpu else own
    host = {"process": process, "codes": codes.table.nbytes, "loader": _loader_bytes(encoder, options, state.data)}
    if options.validate_every:
        host["best state"] = _bytes_of(encoder.parameters())
    free = int(SHARE_TRIED * _free_bytes(device)) - 2 * _bytes_of(state.modules.parameters()) - catalogue * on_gpu
    index, steps, unknown = 0, [], "the parameters alone are too large to try a step"
    if free > 0:
        state.modules.to(device)
        state.begin()
        callers = [state.trainer, *(loss for loss, _ in losses)]
        check_shapes(method.encoder.name, encoder, state.data, codes, callers=callers, device=device)
        index, unknown = _index_bytes(registry, method, encoder, split, device)
        steps = _watch_steps(state, free)
        if not steps:
            unknown = f"a step of {FIRST_TRIAL} users alone takes more than half of the memory that is free"
    parameters = _bytes_of(state.modules.parameters())
    tables = _bytes_of(each.weight for each in state.modules.modules() if isinstance(each, Embedding | EmbeddingBag))
    known = {"tables": tables, "other parameters": parameters - tables, "catalogue": catalogue, "index": index}
    known["gradients"], growing = parameters, {"loader": host["loader"]}
    if steps:
        most, growing["activations"] = _most_alive(steps, options.batch_size)
        known["gradients"] = int(_line(steps, [step.gradients for step in steps], options.batch_size))
        known["activations"] = max(0, most - known["gradients"])
    known["optimizer state"] = _state_bytes(partial(registry.build, "optimizers", stage.optimizer), state.modules)
    return plan(
        device=known,
        host=host,
        growing=growing,
        mapped=mapped_bytes,
        unknown=unknown,
    )


def memory_limits(device: str) -> tuple[int, int | None]:
    """RAM that this process may have at most, its control group's limit included, and the GPU's memory."""
    on_gpu = torch.device(device).type == "cuda"
    return memory_limit(), torch.cuda.get_device_properties(device).total_memory if on_gpu else None


def _watch_steps(state: TrainState, limit: int) -> list[_Step]:
    """Steps of more and more users up to the batch size, as far as they take neither long nor more than `limit`."""
    state.train()
    examples, length = examples_of(state), history_length(state.encoder)
    state.step = state.steps = 1
    steps: list[_Step] = []
    users = 0
    while users < state.options.batch_size:
        users = min(FIRST_TRIAL if not users else 4 * users + 1, state.options.batch_size)
        if len(steps) > 1 and _line(steps, [step.seconds for step in steps], users) > LONGEST_SECONDS:
            break
        batch = next(training_batches(state.data, examples, history_length=length, batch_size=users, workers=0))
        began = time.perf_counter()
        try:
            with LiveBytes(limit) as live:
                state.trainer.step(state, batch.to(state.device))
        except (MemoryError, torch.OutOfMemoryError):
            break
        seconds = time.perf_counter() - began
        gradients = [each.grad for each in state.modules.parameters() if each.grad is not None]
        steps.append(_Step(users, seconds, sum(map(_stored_bytes, gradients)), live.changes))
        state.modules.zero_grad(set_to_none=True)
    return steps


def _line(steps: Sequence[_Step], values: Sequence[float], users: int) -> float:
    """The line through the last two values at so many users, or the only value; it does not fall."""
    slope = (values[-1] - values[-2]) / (steps[-1].users - steps[-2].users) if len(steps) > 1 else 0.0
    return values[-1] + max(0.0, slope) * (users - steps[-1].users)


def _most_alive(steps: Sequence[_Step], users: int) -> tuple[int, int]:
    """The most bytes alive at one time in a step of so many users, and how many of them grow with the users.

    Tensors that are as large in both steps, such as those of the whole catalogue, do not grow, and are counted by
    themselves: their peak would hide that of few users' tensors. Where there is one step, all of it grows.
    """
    first, last = [_Step(0, 0.0, 0, ()), *steps][-2:]
    same = set(map(abs, first.changes)) & set(map(abs, last.changes))
    constant = peak(change for change in last.changes if abs(change) in same)
    grows = [peak(change for change in step.changes if abs(change) not in same) for step in (first, last)]
    grown = int(_line((first, last), grows, users))
    return (peak(last.changes) if users == last.users else constant + grown), grown


def _state_bytes(make_optimizers: Callable[[nn.Module], Sequence[Optimizer]], module: nn.Module) -> int:
    """Bytes of the optimizers' states, from an update of a few rows of each parameter, which is all that is left."""
    bags = [child for child in module.modules() if isinstance(child, Embedding | EmbeddingBag)]
    sparse = {child.weight for child in bags if child.sparse}
    sizes: dict[Tensor, int] = {parameter: parameter.numel() for parameter in module.parameters()}
    for parameter, size in sizes.items():
        if size > SHRUNK:
            parameter.data = parameter.data[: max(1, SHRUNK * len(parameter) // size)].clone()
    optimizers = make_optimizers(module)
    for parameter in filter(lambda each: each.requires_grad, sizes):
        parameter.grad = torch.zeros_like(parameter.data)
        if parameter in sparse:
            parameter.grad = parameter.grad.to_sparse(1)
    total = 0
    for optimizer in optimizers:
        optimizer.step()
        for owner, state in optimizer.state.items():
            for tensor in (each for each in state.values() if isinstance(each, Tensor)):
                grows = tensor.ndim > 0 and len(tensor) == len(owner)
                total += tensor.nbytes * sizes[owner] // owner.numel() if grows else tensor.nbytes
    return total


@torch.no_grad()
def _index_bytes(registry: Registry, method: Method, encoder: Any, split: Split, device: str) -> tuple[int, str]:
    """Bytes of the candidates in the retriever; where they cannot be known, 0 and why. Raises SuiteError where it does
    not go with the encoder."""
    retriever, pool, known = registry.build("retrievers", method.retriever), len(split.candidates), None
    optional(retriever, Retriever.check_encoder)(encoder)
    if isinstance(encoder, Embedder):
        width = encoder.eval().embed_items(torch.from_numpy(split.candidates[:FIRST_TRIAL]).to(device)).shape[1]  # type: ignore[attr-defined]
        known = optional(retriever, Retriever.index_bytes)(pool, width)
        if known is None and Embedder in type(retriever).needs:
            known = pool * width * 4
    return (0, f"the index of {method.retriever.name} is not in it") if known is None else (pool * 8 + known, "")


def _loader_bytes(encoder: Any, options: TrainingOptions, data: TrainingData) -> int:
    """Batches read ahead, what a worker holds while it makes one: about another two, and the order of the users."""
    batch = 5 * 8 * options.batch_size * (history_length(encoder) + 1)
    return batch * (2 * options.workers + 2) + 2 * batch * max(options.workers, 1) + 8 * len(data.trainable)


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _stored_bytes(gradient: Tensor) -> int:
    return _bytes_of((gradient._indices(), gradient._values())) if gradient.is_sparse else gradient.nbytes


def _free_bytes(device: str) -> int:
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(psutil.virtual_memory().available, memory_limits(device)[0])
