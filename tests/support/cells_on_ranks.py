"""A program: runs small cells on one, two and four processes, each forked from here, where nothing is computed.

    python cells_on_ranks.py FOLDER RUN...

Each run leaves its record, its lists and what it said in FOLDER/RUN; `RUNS` says what each is.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from grbench import hookimpl
from grbench.data.store import Store
from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import current
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.results.record_files import checkpoint_folder
from grbench.run.backends.child_process import ChildMessages
from grbench.run.backends.fork_server import LIBRARIES
from grbench.run.run_cell import main
from grbench.suite.method import Method, Stage
from grbench.suite.suite import Cell
from grbench.testing import tiny_store
from grbench.training.state import TrainState
from grbench.types import Batch, Codes
from grbench_reference.encoders.causal_transformer import CausalTransformer, TransformerOptions
from grbench_reference.trainers.supervised import Supervised

USERS, ITEMS, BATCH = 1100, 60, 256  # three batches of queries, of which the last is smaller, and five of training
BLANK = Record(digest="d" * 16, suite="tiny", method="m", seed=0, status="error", training_digest="t" * 16)
DENSE = Component("causal_transformer", {"width": 8, "heads": 2, "dropout": 0.0, "history_length": 5})
SPARSE = replace(DENSE, options={**DENSE.options, "sparse": True})
DECODER = Component("sid_decoder", {"width": 8, "heads": 2, "dropout": 0.0, "history_length": 5})
IN_BATCH = {"negatives": {"uniform": 8, "in_batch": True, "bank": 30}, "action_weights": {"click": 2.5}, "logq": "yi"}


def counted(high: int, shape: tuple[int, ...], *, device: Any = None) -> torch.Tensor:
    """In place of `torch.randint`: 0, 1, 2, ... along the last dimension, below `high`."""
    last = torch.arange(shape[-1], device=device) % high if shape else torch.zeros((), dtype=torch.int64, device=device)
    return last.expand(shape)


CONSTANTS: Mapping[str, Callable[..., torch.Tensor]] = {
    "rand": lambda *shape, device=None, **_: torch.full(
        shape if isinstance(shape[0], int) else shape[0], 0.5, device=device
    ),
    "randn_like": lambda like: torch.full_like(like, 0.3),
    "randint": counted,
    "randperm": lambda count, device=None: torch.arange(count, device=device),
}


class Faulty(Supervised):
    """Fails on one rank at the third step: by an exception, or by what ends a process."""

    def __init__(self, *, rank: int, how: str) -> None:
        super().__init__()
        self.rank, self.how = rank, how

    def step(self, state: TrainState, batch: Batch) -> Mapping[str, Any]:
        if current().rank == self.rank and state.total_steps == 3:
            sys.stdout.write("about to fail\n")
            sys.stdout.flush()
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.how == "ended":
                os._exit(7)
            raise ValueError("no such thing")
        return super().step(state, batch)


class Drifting(CausalTransformer):
    """Learns something from the users of its own process alone."""

    def __init__(self, data: TrainingData, codes: Codes) -> None:
        super().__init__(data, codes, transformer=TransformerOptions(width=8, heads=2, dropout=0.0, history_length=5))
        self.register_buffer("seen", torch.zeros(3))

    def embed(self, batch: Batch, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.training:
            self.seen += batch.items.float().mean()
        return super().embed(batch, items)


class OwnPlugins:
    @hookimpl
    def register_encoders(self, register: Any) -> None:
        register("drifting", Drifting)

    @hookimpl
    def register_trainers(self, register: Any) -> None:
        register("faulty", Faulty)


@dataclass(frozen=True)
class Run:
    """One cell on so many devices. after: a run whose checkpoint it goes on from; weights: one whose model it ranks.
    constant: random numbers of torch's are constants, as those cannot be equal that each device draws of its own."""

    encoder: Component = DENSE
    loss: Component | tuple[Component, ...] = Component("infonce", IN_BATCH)
    devices: int = 1
    tokenizer: Component = Component("ids", {})
    retriever: Component = Component("exact", {})
    training: Mapping[str, Any] | None = None
    trainer: Component = Component("supervised", {})
    after: str | None = None
    weights: str | None = None
    constant: bool = False


SELECTS = {"validate_every": 1, "select": "ndcg@3"}
GENERATIVE = Run(
    encoder=DECODER,
    loss=Component("next_code", {"action_weights": {"click": 2.5}}),
    tokenizer=Component("rq_kmeans", {"source": "cooccurrence", "width": 4, "sizes": (6, 10)}),
    retriever=Component("beam", {"width": 8}),
)
RESUMED = {"shard_tables": 8, "accumulate": 2, **SELECTS}
DIVIDED = {"shard_tables": 8, **SELECTS}
_METHODS = {
    "dense": Run(training=SELECTS),
    "generative": GENERATIVE,
    "sparse": Run(encoder=SPARSE, training={"accumulate": 2, "clip_norm": 0.5}),
}
_METHODS["divided"] = Run(training={**DIVIDED, "clip_norm": 0.5})
_METHODS["divided sparse"] = Run(encoder=SPARSE, training={**DIVIDED, "accumulate": 2})
RUNS = {
    **{f"{name} {n}": replace(run, devices=n) for name, run in _METHODS.items() for n in (1, 2, 4)},
    "ranked dense 2": Run(devices=2, training=DIVIDED, weights="dense 1"),
    "ranked generative 2": replace(GENERATIVE, devices=2, weights="generative 1"),
    "drifting 2": Run(encoder=Component("drifting", {}), devices=2),
    "apart 2": Run(devices=2, training={**SELECTS, "gather_targets": False}),
    **{f"begun {n}": replace(_METHODS["divided sparse"], devices=n, training={**RESUMED, "epochs": 2}) for n in (1, 2)},
    **{
        f"resumed {n} {after}": replace(_METHODS["divided sparse"], devices=n, training=RESUMED, after=f"begun {after}")
        for n, after in ((1, 2), (2, 1), (4, 2))
    },
    **{
        f"{how} {rank}": Run(devices=2, trainer=Component("faulty", {"rank": rank, "how": how}))
        for how in ("raised", "killed", "ended")
        for rank in (0, 1)
    },
}


def world(folder: Path) -> Store:
    """Users who walk through the items, some of whom have a single event; two actions; a field of the items."""
    walks = [
        [(1 + (7 * user + step) % ITEMS, (user + step) % 2, 100 + step) for step in range(3 + user % 5)]
        for user in range(USERS)
    ]
    return tiny_store(folder, walks, num_items=ITEMS, item_features={"kind": [item % 9 for item in range(ITEMS)]})


def job_of(run: Run, store: Store, folder: Path) -> dict[str, Any]:
    training = {"epochs": 3, "batch_size": BATCH, "workers": 0, "devices": run.devices, **(run.training or {})}
    optimizer = Component("adam", {"lr": 0.02})
    losses = run.loss if isinstance(run.loss, tuple) else (run.loss,)
    stage = Stage("", None, tuple((loss, 1.0) for loss in losses), run.trainer, optimizer, training)
    method = Method("m", run.tokenizer, run.encoder, run.retriever, (stage,), (), ())
    metrics = (Component("ndcg", {"k": 3}), Component("hit_rate", {"k": 2}))
    cell = Cell("tiny", Component("tiny"), Component("leave_last_out"), metrics, method, 7)
    return {
        "cell": cell.to_json(),
        "blank": BLANK.to_json(),
        "source": None,
        "weights": run.weights and str(folder / run.weights / f"{BLANK.digest}.json"),
        "store": str(store.path),
        "cache": str(folder / "cache"),
        "device": "cpu",
        "peaks": {},
        "checkpoint_minutes": 1e-9,
        "anew": False,
        "keep_weights": True,
    }


def run_all(folder: Path, runs: Mapping[str, Run], make_world: Callable[[Path], Store]) -> None:
    for module in (*LIBRARIES, "torch._dynamo"):  # as the process has them that cells are forked from
        import_module(module)
    registry = Registry.load()
    registry.add("own", "own", "1", OwnPlugins)
    Registry.load = classmethod(lambda *_, **__: registry)  # type: ignore[method-assign,assignment]
    store = make_world(folder / "store")
    for name, run in runs.items():
        place = folder / name
        place.mkdir()
        if run.after is not None:
            left = checkpoint_folder(folder / run.after, BLANK.digest)
            shutil.copytree(left, place / left.name)
        cell = get_context("fork").Process(target=_run, args=(job_of(run, store, folder), place, run.constant))
        cell.start()
        cell.join()


def _run(job: dict[str, Any], place: Path, constant: bool) -> None:
    if constant:
        vars(torch).update(CONSTANTS)
    with (place / "said").open("w") as said:
        main({**job, "folder": str(place)}, ChildMessages(said))


if __name__ == "__main__":
    run_all(Path(sys.argv[1]), {name: RUNS[name] for name in sys.argv[2:]}, world)
