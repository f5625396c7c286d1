"""The pieces of work that plug-ins are timed by, made so that two of a kind can be compared. `KINDS` says what is timed
of each kind, `paired_timing.py` times it, and `pytest_plugin.py` has the fixtures `versus` and `workbench`.

Shapes: P candidates, D width, Q queries, K list length.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grbench.cost.meter import synchronize
from grbench.data.batches import query_batches
from grbench.data.split import Split
from grbench.data.store import Store
from grbench.data.store_writer import build_store
from grbench.errors import PluginError
from grbench.hookspecs import DEFAULT_PARTS, KIND_OF_PART, KINDS, singular
from grbench.interfaces import Embedder
from grbench.registry.attributes import history_length
from grbench.registry.component import Component
from grbench.registry.discovery import Plugin, Registry, interface_class, missing_interfaces
from grbench.registry.options import options_model
from grbench.suite.method import read_component
from grbench.testing.made_up import TableOfVectors, made_up_ranking
from grbench.testing.paired_timing import Work
from grbench.training.loop import batches_of, examples_of
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainState
from grbench.types import Batch, Codes

PluginChoice = str | Mapping[str, Any]
"""A plug-in as a suite names it: its name, or {"name": ..., option: ...}."""

PARTNERS = {**DEFAULT_PARTS, "encoder": "causal_transformer", "loss": "bce"}
"""What a plug-in is put together with where the test does not say, and where the interfaces fit."""

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
    """Makes the piece of work that a plug-in is timed by: what `KINDS` says of its kind.

    split, store: called when a piece of work first needs data. Searches of vectors need none, protocols alone need the
    store.
    """

    def __init__(
        self,
        registry: Registry,
        split: Callable[[], Split],
        *,
        store: Callable[[], Store] | None = None,
        size: Size = TIMED,
        device: torch.device | str = "cpu",
    ) -> None:
        self.registry, self.size, self.device = registry, size, torch.device(device)
        self._split, self._store = split, store

    @cached_property
    def split(self) -> Split:
        """The world's training data, queries and candidates."""
        return self._split()

    def works(
        self, kind: str, *choices: PluginChoice, batch_size: int | None = None, **parts: PluginChoice
    ) -> list[Work]:
        """One piece of work for each plug-in of the kind, all with the same partners, on the same data.

        batch_size: users of a training step. parts: the partners, by a method's keys (tokenizer, encoder, loss,
        trainer, optimizer); what is not named is the reference's, or else the first plug-in whose interfaces fit.
        Raises PluginError where none fits, or nothing is timed of the kind.
        """
        if unknown := parts.keys() - PARTNERS.keys():
            raise PluginError(f"{min(unknown)}: no part of a method; there are {', '.join(sorted(PARTNERS))}")
        match KINDS[kind].timed if kind in KINDS else "":
            case "ingest":
                works: list[Work] = [partial(self._ingest, choice) for choice in choices]
            case "split" if self._store is not None:
                works = [partial(self.build(kind, choice).split, self._store()) for choice in choices]
            case "fit":
                works = [partial(self._fit, choice) for choice in choices]
            case "step":
                chosen = self._partners(kind, choices, parts)
                size = batch_size or self.size.batch_size
                works = [self._training_step({**chosen, singular(kind): choice}, size) for choice in choices]
            case "search":
                works = self._searches(choices, parts)
            case "scores":
                longest = max(self._component(kind, choice).options.get("k", LIST_LENGTH) for choice in choices)
                ranking = made_up_ranking(self.size.rankings, longest, self.split.training)
                works = [partial(self.build(kind, choice), ranking) for choice in choices]
            case _:
                known = ", ".join(f"{each.name} ({each.timed})" for each in KINDS.values() if each.timed)
                raise PluginError(f"{kind}: nothing of them can be timed here; there are {known}")
        return [self._waiting(work) for work in works]

    def index(self, retriever: PluginChoice, **parts: PluginChoice) -> Work:
        """Indexing the candidates."""
        encoder, candidates, codes, _ = self._pool([retriever], parts)
        return self._waiting(lambda: self.build("retrievers", retriever).index(encoder, candidates, codes))

    def build(self, kind: str, choice: PluginChoice, *runtime_objects: object) -> Any:
        """A plug-in with its options; k of a metric is LIST_LENGTH where it is not given."""
        return self.registry.build(kind, self._component(kind, choice), *runtime_objects)

    def model(self, encoder: PluginChoice, tokenizer: PluginChoice = PARTNERS["tokenizer"]) -> tuple[nn.Module, Codes]:
        """An encoder on the device, fresh from a fixed seed, and the codes that it reads."""
        codes = self._fit(tokenizer)
        torch.manual_seed(0)
        made: nn.Module = self.build("encoders", encoder, self.split.training, codes).to(self.device)
        return made, codes

    def _ingest(self, dataset: PluginChoice) -> None:
        with tempfile.TemporaryDirectory(prefix="grbench-benchmark-") as cache:
            build_store(self.build("datasets", dataset), name="benchmark", cache=Path(cache))

    def _fit(self, tokenizer: PluginChoice) -> Codes:
        codes: Codes = self.build("tokenizers", tokenizer).fit(self.split.training)
        return codes

    def _training_step(self, parts: Mapping[str, PluginChoice], batch_size: int) -> Work:
        """The step of a run, on a few whole batches in turn."""
        data = self.split.training
        encoder, codes = self.model(parts["encoder"], parts["tokenizer"])
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            name = self._component("encoders", parts["encoder"]).name
            raise PluginError(f"encoder {name!r} has nothing to learn, so it has no training step to time")
        state = TrainState(
            encoder,
            [(self.build("losses", parts["loss"], data, codes).to(self.device), 1.0)],
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
        return lambda: state.trainer.step(state, next(turn))

    def _searches(self, choices: Sequence[PluginChoice], parts: Mapping[str, PluginChoice]) -> list[Work]:
        encoder, candidates, codes, batch = self._pool(choices, parts)
        retrievers = [self.build("retrievers", choice) for choice in choices]
        with torch.no_grad():
            for retriever in retrievers:
                retriever.index(encoder, candidates, codes)
        # One more than the list holds, as ranking asks for, to see a tie across its end.
        return [torch.no_grad()(partial(each.search, encoder, batch, LIST_LENGTH + 1)) for each in retrievers]

    def _pool(
        self, retrievers: Sequence[PluginChoice], parts: Mapping[str, PluginChoice]
    ) -> tuple[nn.Module, Tensor, Codes, Batch]:
        """Encoder, candidates [P], codes and a batch of queries.

        Where vectors are all that the retrievers need, the encoder is a table of them, so that what is timed is the
        search and not the encoder.
        """
        if "encoder" not in parts and self._needs({"retriever": retrievers}) <= {Embedder}:
            table = TableOfVectors(self.size.candidates, self.size.queries).to(self.device)
            items = torch.arange(self.size.candidates + 1, device=self.device)
            return table, items[1:], Codes(items.unsqueeze(1), (len(items),)), table.queries()
        chosen, split = self._partners("retrievers", retrievers, parts), self.split
        encoder, codes = self.model(chosen["encoder"], chosen["tokenizer"])
        length = history_length(encoder.eval())
        _, batch = next(query_batches(split.test, history_length=length, batch_size=self.size.queries, workers=0))
        return encoder, torch.from_numpy(np.array(split.candidates)).to(self.device), codes, batch.to(self.device)

    def _waiting(self, work: Work) -> Work:
        def timed() -> None:
            work()
            synchronize(self.device)

        return timed

    def _component(self, kind: str, choice: PluginChoice) -> Component:
        read = read_component(choice, singular(kind))
        takes_k = kind == "metrics" and "k" in options_model(self.registry.get(kind, read.name).factory).model_fields
        return Component(read.name, {"k": LIST_LENGTH, **read.options}) if takes_k else read

    def _partners(
        self, kind: str, choices: Sequence[PluginChoice], parts: Mapping[str, PluginChoice]
    ) -> dict[str, PluginChoice]:
        """Every part of a method: those named, an encoder that shows what calls it, a loss that fits all encoders."""
        named = {**{part: [choice] for part, choice in parts.items()}, singular(kind): choices}
        if "encoder" not in named:
            needs = self._needs(named)
            named["encoder"] = [self._first("encoder", lambda each: not missing_interfaces(needs, each.factory))]
        if "loss" not in named and kind != "retrievers":
            encoders = self._plugins("encoder", named)
            named["loss"] = [
                self._first(
                    "loss", lambda loss: not any(missing_interfaces(_needs(loss), each.factory) for each in encoders)
                )
            ]
        return {**PARTNERS, **{part: choices[0] for part, choices in named.items()}}

    def _needs(self, named: Mapping[str, Sequence[PluginChoice]]) -> set[type]:
        """The interfaces of an encoder that its losses, trainers and retrievers call."""
        callers = [plugin for part in ("loss", "trainer", "retriever") for plugin in self._plugins(part, named)]
        return {need for plugin in callers for need in _needs(plugin)}

    def _plugins(self, part: str, named: Mapping[str, Sequence[PluginChoice]]) -> list[Plugin]:
        return [self.registry.get(KIND_OF_PART[part], read_component(each, part).name) for each in named.get(part, ())]

    def _first(self, part: str, fits: Callable[[Plugin], bool]) -> str:
        """The usual plug-in where it fits, else the first one that does."""
        plugins = self.registry.plugins(KIND_OF_PART[part])
        for plugin in sorted(plugins, key=lambda plugin: plugin.name != PARTNERS[part]):
            if fits(plugin):
                return plugin.name
        raise PluginError(f"no {part} that is installed fits all that is to be compared; name one with {part}=...")


def _needs(plugin: Plugin) -> tuple[type, ...]:
    return tuple(getattr(interface_class(plugin.factory), "needs", ()))
