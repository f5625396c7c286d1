"""The processes that train one cell together, one a device. In a process that trains alone nothing is exchanged, and
every function here gives back what it was given.

Each of the R ranks works on its part of a batch: consecutive rows, in the batch's order. Parameters and optimizers are
the same on all ranks, because gradients are averaged before an update.

Shapes: B users of a batch, P positions with a target of a rank.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=3)
"""For another rank, such as the first one while it writes a checkpoint; one that has died is noticed at once."""


class Ranks:
    """This process among those of its cell.

    rank: its number, 0 = the first, which alone reports, and writes checkpoints and the record; size: how many there
    are; device: its own. gathers: whether `gathered` has the targets of all ranks.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | str = "cpu") -> None:
        self.rank, self.size, self.device = rank, size, torch.device(device)
        self.gathers = True
        self._shared: list[Tensor] | None = None  # the generators that all ranks draw from alike, during a step
        self._clock = _Stopwatch(self.device)

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    @property
    def backend(self) -> str | None:
        """What the devices' tensors are exchanged by: gloo or nccl; None alone."""
        return None if self.alone else ("nccl" if self.device.type == "cuda" else "gloo")

    def part(self, count: int) -> slice:
        """This rank's part of `count` rows; parts differ by one row at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def own_rows(self, rows: Tensor) -> Tensor:
        """rows [N, ...] -> those of this rank, which are every R-th."""
        return rows[self.rank :: self.size].clone()

    def __deepcopy__(self, _: dict[int, Any]) -> Ranks:
        """Itself: a copy of a model is of the same process."""
        return self

    def turns(self, batches: int, *, last_is_smaller: bool) -> tuple[list[int], list[bool]]:
        """Which of so many batches this rank does, one after another, and whether it does each for its own result.

        All ranks do as many, and at each turn batches of one size, so that encoders whose tables are divided exchange
        as often on each: where there are fewer batches left than ranks, the others do the first of them too.
        """
        whole = batches - 1 if last_is_smaller else batches
        rounds = [range(first, min(first + self.size, whole)) for first in range(0, whole, self.size)]
        rounds += [range(whole, batches)] * (whole < batches)
        own = [(each[self.rank], True) if self.rank < len(each) else (each[0], False) for each in rounds]
        return [number for number, _ in own], [kept for _, kept in own]

    # --- exchanges, in which every rank takes part

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""
        if self.alone:
            return values
        with self._clock:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def mean(self, values: Mapping[str, Tensor | float]) -> Mapping[str, Tensor | float]:
        """The means over all ranks of scalars by name, whose names and order are the same on all."""
        if self.alone or not values:
            return values
        numbers = [torch.as_tensor(value, dtype=torch.float32, device=self.device) for value in values.values()]
        means = self.total(torch.stack([number.detach() for number in numbers])) / self.size
        return dict(zip(values, means.unbind(), strict=True))

    def concatenated(self, rows: Tensor) -> Tensor:
        """rows [P, ...] -> those of all ranks, the first rank's first."""
        if self.alone:
            return rows
        with self._clock:
            counts = self._counts(len(rows))
            longest = max(counts)
            padded = rows.new_zeros((longest, *rows.shape[1:]))
            padded[: len(rows)] = rows
            every = [torch.empty_like(padded) for _ in counts]
            dist.all_gather(every, padded)
        return torch.cat([each[:count] for each, count in zip(every, counts, strict=True)])

    def exchanged(self, rows: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """rows [sum of sent, ...], `sent` of them for each rank in turn -> [sum of received, ...], those for this
        one."""
        with self._clock:
            got = rows.new_empty((sum(received), *rows.shape[1:]))
            dist.all_to_all_single(got, rows.contiguous(), list(received), list(sent))
        return got

    def counts_for_me(self, sent: Tensor) -> Tensor:
        """[R] int64, how many rows this rank has for each -> [R], how many each has for it. On the host."""
        with self._clock:
            received = torch.empty_like(sent)
            dist.all_to_all_single(received, sent)
        return received

    def from_first(self, value: Any) -> Any:
        """The first rank's value, on all."""
        if self.alone:
            return value
        with self._clock:
            box = [value]
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def done_by_first(self, work: Callable[[], T]) -> T:
        """What `work` gives on the first rank, on all; the generators are as it left them."""
        if self.alone:
            return work()
        done = (work(), _generators(self.device)) if self.first else None
        result: T
        result, states = self.from_first(done)
        _set_generators(states, self.device)
        return result

    def to_first(self, value: Any) -> list[Any]:
        """All ranks' values, in order, on the first; nothing on the others."""
        if self.alone:
            return [value]
        with self._clock:
            every: list[Any] | None = [None] * self.size if self.first else None
            dist.gather_object(value, every)
        return every or []

    def send_to_first(self, rows: Tensor) -> None:
        """A tensor for `received_by_first`."""
        with self._clock:
            dist.send(rows.detach().cpu().contiguous(), 0)

    def received_by_first(self, like: Tensor, rank: int) -> Tensor:
        """What another rank has sent, of this shape, on the host."""
        with self._clock:
            got = torch.empty(like.shape, dtype=like.dtype)
            dist.recv(got, rank)
        return got

    def average(self, flat: Tensor) -> None:
        """Replaces the numbers by their mean over all ranks."""
        with self._clock:
            dist.all_reduce(flat)
        flat /= self.size

    def _counts(self, count: int) -> list[int]:
        every = torch.zeros(self.size, dtype=torch.int64)
        every[self.rank] = count
        dist.all_reduce(every)
        return [int(each) for each in every]

    # --- random numbers

    @contextmanager
    def step(self, seed: int, number: int, *, gathers: bool) -> Iterator[None]:
        """A training step, number `number` of this seed's. Inside it each rank draws random numbers of its own, for
        they are of other users; outside of it, and in `drawn_alike`, all ranks draw the same."""
        if self.alone:
            yield
            return
        self._shared, self.gathers = _generators(self.device), gathers
        own = np.random.SeedSequence((seed, number, self.rank)).generate_state(1, np.uint32)
        torch.manual_seed(int(own[0]))
        try:
            yield
        finally:
            _set_generators(self._shared, self.device)
            self._shared, self.gathers = None, True

    def drawn_alike(self, draw: Callable[[], T]) -> T:
        """See the function of this name."""
        if self._shared is None:
            return draw()
        own = _generators(self.device)
        _set_generators(self._shared, self.device)
        drawn = draw()
        self._shared = _generators(self.device)
        _set_generators(own, self.device)
        return drawn

    # --- costs

    def communication_seconds(self) -> float:
        """Spent in exchanges so far, the waiting for slower ranks included."""
        return self._clock.seconds()


class Rehearsal(Ranks):
    """The first of so many ranks, without the others: what they would send is as large as what is sent to them. For
    forecasts of memory."""

    def own_rows(self, rows: Tensor) -> Tensor:
        """As many rows as a rank has, with whatever content."""
        return rows.new_empty((-(-len(rows) // self.size), *rows.shape[1:]))

    def exchanged(self, rows: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:  # noqa: ARG002
        """A copy."""
        return rows.clone()

    def counts_for_me(self, sent: Tensor) -> Tensor:
        """As many."""
        return sent


class _Stopwatch:
    """Adds up the time inside; on a GPU that of the device, which is not waited for."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds, self._began = 0.0, 0.0
        self._pairs: deque[list[Any]] = deque()

    def __enter__(self) -> None:
        if self._on_gpu:
            self._pairs.append([torch.cuda.Event(enable_timing=True) for _ in range(2)])  # type: ignore[no-untyped-call]
            self._pairs[-1][0].record()
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if not self._on_gpu:
            self._seconds += time.perf_counter() - self._began
            return
        self._pairs[-1][1].record()
        self._add()

    def _add(self) -> None:
        while self._pairs and self._pairs[0][1].query():
            began, ended = self._pairs.popleft()
            self._seconds += began.elapsed_time(ended) / 1000

    def seconds(self) -> float:
        if self._pairs:
            torch.cuda.synchronize()
            self._add()
        return self._seconds


def _generators(device: torch.device) -> list[Tensor]:
    """The states of torch's generators, the GPU's second."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_generators(states: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


_ALONE = Ranks()
_current = _ALONE


def current() -> Ranks:
    """This process among those of its cell."""
    return _current


def join(rank: int, size: int, device: torch.device | str, meeting_point: Path) -> Ranks:
    """Meets the other ranks of this machine, for the life of the process. meeting_point: a file that none has made
    yet."""
    global _current  # noqa: PLW0603 - of the process, as torch's own group is
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the machine's own name need not lead to it
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo",
        store=dist.FileStore(str(meeting_point), size),  # type: ignore[attr-defined]
        rank=rank,
        world_size=size,
        timeout=LONGEST_WAIT,
    )
    _current = Ranks(rank, size, device)
    return _current


def leave() -> None:
    """Ends what `join` began, once all ranks are here."""
    global _current  # noqa: PLW0603 - as in `join`
    if not _current.alone:
        dist.barrier()
        dist.destroy_process_group()
        _current = _ALONE


# --- what losses call


def gathered(rows: Tensor) -> Tensor:
    """rows [P, ...] of this device's part of the batch, without a gradient -> those of the whole batch, in its order.

    Where the method keeps devices apart (`training.gather_targets: false`), and where there is one device, they stay
    as they are.
    """
    return rows if _current.alone or not _current.gathers else _current.concatenated(rows)


def averaged(total: Tensor) -> Tensor:
    """A sum over this device's part of the batch -> the mean of the devices' sums, without a gradient.

    For terms that are means over something else than the positions that `Loss.weight` counts: a device's sum divided by
    it has the whole batch's mean as its mean over the devices. All devices call it alike often.
    """
    return total if _current.alone else _current.total(total.detach()) / _current.size


def drawn_alike(draw: Callable[[], T]) -> T:
    """What `draw` gives, from random numbers that are the same on all devices: for what all positions of a batch
    share."""
    return draw() if _current.alone else _current.drawn_alike(draw)
