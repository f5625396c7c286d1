"""The pieces of work that plug-ins of each kind are timed by, made so that two of a kind can be compared.

`paired_timing.py` times them; the pytest fixtures `versus` and `workbench` are in `pytest_plugin.py`.

Shapes: P candidates, D width, Q queries, K list length, T history length.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grbench.cost.meter import synchronize
from grbench.data.batches import query_batches
from grbench.data.split import Split
from grbench.data.store_writer import build_store
from grbench.data.training_data import TrainingData
from grbench.errors import PluginError
from grbench.hookspecs import DEFAULT_PARTS, singular
from grbench.interfaces import Embedder
from grbench.registry.component import Component
from grbench.registry.discovery import Plugin, Registry, interface_class, missing_interfaces
from grbench.registry.options import options_model
from grbench.suite.method import read_component
from grbench.testing.paired_timing import Work
from grbench.training.loop import batches_of, examples_of
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainState
from grbench.types import FIRST_ACTION, Batch, Codes, Ranking

PluginChoice = str | Mapping[str, Any]
"""A plug-in as a suite names it: its name, or {"name": ..., option: ...}."""

PARTNERS = {**DEFAULT_PARTS, "encoder": "causal_transformer", "loss": "bce"}
"""What a plug-in is put together with where the test does not say, and where the interfaces fit."""

ACTIONS = ("exposure", "click", "conversion")
LIST_LENGTH = 10
BATCHES = 4  # that training steps take in turn


@dataclass(frozen=True)
class Size:
    """How large the world of a benchmark is. candidates, queries: of a search; rankings: the queries of a metric."""

    users: int
    items: int
    batch_size: int
    candidates: int
    queries: int
    rankings: int


TIMED = Size(users=4_000, items=100_000, batch_size=512, candidates=100_000, queries=512, rankings=79_000)
"""The shape of TencentGR as far as one step and one search see it, in seconds on two cores."""

SMOKE = Size(users=200, items=500, batch_size=16, candidates=10_000, queries=16, rankings=50)
"""Where nothing is timed, and a benchmark only has to run."""


class Workbench:
    """Makes the piece of work that a plug-in of each kind is timed by.

    datasets: source to store; tokenizers: a fit; encoders, losses, trainers, optimizers: a training step, the update
    included; retrievers: the search for a batch's lists; metrics: the scores of a ranking.
    """

    def __init__(
        self, registry: Registry, split: Callable[[], Split], *, size: Size = TIMED, device: torch.device | str = "cpu"
    ) -> None:
        """split: called when a piece of work first needs data; searches of vectors need none."""
        self.registry, self.size, self.device = registry, size, torch.device(device)
        self._split = split

    @property
    def split(self) -> Split:
        """The world's training data, queries and candidates."""
        return self._split()

    def works(
        self, kind: str, *components: PluginChoice, batch_size: int | None = None, **parts: PluginChoice
    ) -> list[Work]:
        """One piece of work for each plug-in of the kind, all with the same partners, on the same data.

        batch_size: users of a training step. parts: the partners, by a method's keys (tokenizer, encoder, loss,
        optimizer); what is not named is the reference's, or else the first plug-in whose interfaces fit. Raises
        PluginError where none fits, or the kind does no work that can be timed.
        """
        unknown = parts.keys() - PARTNERS.keys()
        if unknown:
            raise PluginError(f"{min(unknown)}: no part of a method; there are {', '.join(sorted(PARTNERS))}")
        if kind in ("encoders", "losses", "trainers", "optimizers"):
            return self._training_steps(kind, components, batch_size or self.size.batch_size, parts)
        if kind == "retrievers":
            return self._searches(components, parts)
        if kind == "metrics":
            return self._scores(components)
        if kind == "tokenizers":
            return [self._fit(component) for component in components]
        if kind == "datasets":
            return [self._ingest(component) for component in components]
        raise PluginError(f"{kind}: no work of theirs is timed; there are datasets, tokenizers, encoders, losses, ...")

    def index(self, retriever: PluginChoice, **parts: PluginChoice) -> Work:
        """Indexing the candidates."""
        encoder, candidates, codes, _ = self._pool([retriever], parts)
        return self._waiting(lambda: self.build("retrievers", retriever).index(encoder, candidates, codes))

    def build(self, kind: str, component: PluginChoice, *runtime_objects: object) -> Any:
        """A plug-in with its options."""
        name, options = self._read(kind, component)
        return self.registry.build(kind, Component(name, options), *runtime_objects)

    def model(self, encoder: PluginChoice, tokenizer: PluginChoice = PARTNERS["tokenizer"]) -> tuple[nn.Module, Codes]:
        """An encoder on the device, fresh from a fixed seed, and the codes that it reads."""
        data = self.split.training
        codes: Codes = self.build("tokenizers", tokenizer).fit(data)
        torch.manual_seed(0)
        made: nn.Module = self.build("encoders", encoder, data, codes).to(self.device)
        return made, codes

    def _training_steps(
        self, kind: str, components: Iterable[PluginChoice], batch_size: int, parts: Mapping[str, PluginChoice]
    ) -> list[Work]:
        parts = self._partners(kind, components, parts)
        return [self._training_step({**parts, singular(kind): component}, batch_size) for component in components]

    def _training_step(self, parts: Mapping[str, PluginChoice], batch_size: int) -> Work:
        data = self.split.training
        encoder, codes = self.model(parts["encoder"], parts["tokenizer"])
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            name = read_component(parts["encoder"], "encoder").name
            raise PluginError(f"encoder {name!r} has nothing to learn, so it has no training step to time")
        loss = self.build("losses", parts["loss"], data, codes).to(self.device)
        state = TrainState(
            encoder,
            [(loss, 1.0)],
            self.build("trainers", parts["trainer"]),
            partial(self.build, "optimizers", parts["optimizer"]),
            TrainingOptions(batch_size=batch_size, workers=0),
            data=data,
            codes=codes,
            device=self.device,
            seed=0,
        )
        state.begin()
        state.train()
        examples = examples_of(state)
        whole = max(1, examples.num_batches(batch_size) - 1)  # the last one is filled up with empty rows
        batches = itertools.islice(batches_of(state, examples), min(whole, BATCHES))
        turn = itertools.cycle([batch.to(self.device) for batch in batches])
        state.step = state.steps = 1

        def work() -> None:
            state.trainer.step(state, next(turn))

        return self._waiting(work)

    def _searches(self, components: Iterable[PluginChoice], parts: Mapping[str, PluginChoice]) -> list[Work]:
        encoder, candidates, codes, batch = self._pool(components, parts)
        works = []
        for component in components:
            retriever = self.build("retrievers", component)
            with torch.no_grad():
                retriever.index(encoder, candidates, codes)
            # One more than the list holds, as ranking asks for, to see a tie across its end.
            works.append(self._waiting(_search(retriever, encoder, batch)))
        return works

    def _pool(
        self, components: Iterable[PluginChoice], parts: Mapping[str, PluginChoice]
    ) -> tuple[nn.Module, Tensor, Codes, Batch]:
        """Encoder, candidates [P], codes and a batch of queries.

        Where vectors are all that the retrievers need, the encoder is a table of them, so that what is timed is the
        search and not the encoder.
        """
        encoder: nn.Module
        if "encoder" not in parts and self._needs("retrievers", components) <= {Embedder}:
            encoder = TableOfVectors(self.size.candidates, self.size.queries).to(self.device)
            items = torch.arange(self.size.candidates + 1, device=self.device)
            return encoder, items[1:], Codes(items.unsqueeze(1), (len(items),)), encoder.queries()
        parts = self._partners("retrievers", components, parts)
        split = self.split
        encoder, codes = self.model(parts["encoder"], parts["tokenizer"])
        encoder.eval()
        length = int(encoder.history_length)  # type: ignore[arg-type]
        _, batch = next(query_batches(split.test, history_length=length, batch_size=self.size.queries, workers=0))
        return encoder, torch.from_numpy(np.array(split.candidates)).to(self.device), codes, batch.to(self.device)

    def _scores(self, components: Iterable[PluginChoice]) -> list[Work]:
        components = list(components)
        metrics = [self.build("metrics", component) for component in components]
        longest = max(self._read("metrics", component)[1].get("k", LIST_LENGTH) for component in components)
        ranking = made_up_ranking(self.size.rankings, longest, self.split.training)
        return [_bind(metric, ranking) for metric in metrics]

    def _fit(self, component: PluginChoice) -> Work:
        data = self.split.training
        return self._waiting(lambda: self.build("tokenizers", component).fit(data))

    def _ingest(self, component: PluginChoice) -> Work:
        def work() -> None:
            cache = Path(tempfile.mkdtemp(prefix="grbench-benchmark-"))
            try:
                build_store(self.build("datasets", component), name="benchmark", cache=cache)
            finally:
                shutil.rmtree(cache)

        return work

    def _waiting(self, work: Work) -> Work:
        def timed() -> None:
            work()
            synchronize(self.device)

        return timed

    def _read(self, kind: str, component: PluginChoice) -> tuple[str, dict[str, Any]]:
        read = read_component(component, kind)
        options = dict(read.options)
        if kind == "metrics" and "k" in options_model(self.registry.get(kind, read.name).factory).model_fields:
            options.setdefault("k", LIST_LENGTH)
        return read.name, options

    def _needs(self, kind: str, components: Iterable[PluginChoice]) -> set[type]:
        """The interfaces that these losses or retrievers call."""
        return {need for plugin in self._plugins(kind, components) for need in _needs(plugin)}

    def _plugins(self, kind: str, components: Iterable[PluginChoice]) -> list[Plugin]:
        return [self.registry.get(kind, read_component(component, kind).name) for component in components]

    def _partners(
        self, kind: str, components: Iterable[PluginChoice], parts: Mapping[str, PluginChoice]
    ) -> dict[str, PluginChoice]:
        """Every part of a method: those named, an encoder that shows what calls it, a loss that fits all encoders."""
        chosen: dict[str, PluginChoice] = dict(parts)
        if kind != "encoders" and "encoder" not in chosen:
            callers = (
                (kind, components) if kind != "optimizers" else ("losses", [parts["loss"]] if "loss" in parts else [])
            )
            needs = self._needs(*callers)
            chosen["encoder"] = self._first(
                "encoder", "encoders", lambda each: not missing_interfaces(needs, each.factory)
            )
        if kind in ("encoders", "optimizers") and "loss" not in chosen:
            encoders = self._plugins("encoders", components if kind == "encoders" else [chosen["encoder"]])
            chosen["loss"] = self._first("loss", "losses", lambda loss: all(_fit(loss, each) for each in encoders))
        return {**PARTNERS, **chosen}

    def _first(self, part: str, kind: str, fits: Callable[[Plugin], bool]) -> str:
        usual = PARTNERS[part]
        if usual in self.registry.names(kind) and fits(self.registry.get(kind, usual)):
            return usual
        for plugin in self.registry.plugins(kind):
            if fits(plugin):
                return plugin.name
        raise PluginError(f"no {part} that is installed fits all that is to be compared; name one with {part}=...")


class TableOfVectors(nn.Module):
    """An encoder that looks its vectors up: P items in clusters, and histories near them."""

    history_length = 1
    items: Tensor
    histories: Tensor

    def __init__(self, candidates: int, queries: int, *, width: int = 32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(max(1, candidates // 100), width, generator=generator)

        def near(count: int) -> Tensor:
            chosen = torch.randint(len(centres), (count,), generator=generator)
            return nn.functional.normalize(centres[chosen] + 0.5 * torch.randn(count, width, generator=generator))

        self.register_buffer("items", near(candidates + 1))
        self.register_buffer("histories", near(queries))

    def queries(self) -> Batch:
        """A batch of one query a history."""
        nothing = torch.zeros(len(self.histories), 1, dtype=torch.int64, device=self.histories.device)
        users = torch.arange(len(nothing), device=nothing.device)
        return Batch(users, nothing, nothing, nothing, nothing, nothing + FIRST_ACTION)

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, 1, D], [N, D])."""
        return self.embed_histories(batch).unsqueeze(1), self.embed_items(items)

    def embed_histories(self, batch: Batch) -> Tensor:
        """-> [B, D]."""
        return self.histories[batch.users]

    def embed_items(self, items: Tensor) -> Tensor:
        """items [N] -> [N, D]."""
        return self.items[items]


def made_up_ranking(queries: int, length: int, training: TrainingData) -> Ranking:
    """Q lists of `length` items of the catalogue, one target each, which a third of the lists holds."""
    random, pool = np.random.default_rng(0), training.catalogue.num_items
    items = 1 + (random.integers(pool, size=(queries, 1)) + 7 * np.arange(length)) % pool
    ranks = random.integers(-2 * length, length + 1, size=(queries, 1)).clip(min=0)
    targets = np.where(ranks > 0, np.take_along_axis(items, (ranks - 1).clip(min=0), axis=1), pool)
    return Ranking(
        users=np.arange(queries),
        items=items,
        scores=np.broadcast_to(-np.arange(length, dtype=np.float32), items.shape),
        targets=targets,
        target_actions=random.integers(1, len(ACTIONS), size=ranks.shape) + FIRST_ACTION,
        ranks=ranks,
        actions=ACTIONS,
        pool=pool,
        history_lengths=random.integers(1, 100, size=queries),
        training=training,
    )


def _needs(plugin: Plugin) -> tuple[type, ...]:
    return tuple(getattr(interface_class(plugin.factory), "needs", ()))


def _fit(loss: Plugin, encoder: Plugin) -> bool:
    return not missing_interfaces(_needs(loss), encoder.factory)


def _search(retriever: Any, encoder: nn.Module, batch: Batch) -> Work:
    def work() -> None:
        with torch.no_grad():
            retriever.search(encoder, batch, LIST_LENGTH + 1)

    return work


def _bind(metric: Callable[[Ranking], object], ranking: Ranking) -> Work:
    return lambda: metric(ranking)
