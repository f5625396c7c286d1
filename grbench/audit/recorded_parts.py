"""A method's plug-ins, made by the registry as always, with a note of all that they are given and that they make."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from grbench.audit.cut_sizes import BATCH_SIZE, names_a_file
from grbench.audit.opened_files import OpenedFiles
from grbench.audit.trace import Trace
from grbench.data.examples import Examples, newest_events
from grbench.errors import GRBenchError, first_line
from grbench.hookspecs import singular
from grbench.interfaces import Retriever, Tokenizer, Trainer, optional
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.types import Batch, Codes, TopK

if TYPE_CHECKING:
    from grbench.data.training_data import TrainingData
    from grbench.training.state import TrainState

STEPS = 2
"""Of each stage."""
STAND_IN_SIZES = (16, 16, 16)
"""Codes that stand in for those of a file that does not fit the world."""


@dataclass
class Recording:
    """What is noted of a run: the trace, the files that were read, and sentences on what was replaced."""

    trace: Trace
    files: OpenedFiles
    notes: dict[str, None] = field(default_factory=dict)

    @contextmanager
    def by(self, part: str, *, calls: bool = False) -> Iterator[None]:
        """A context in which this part is at work, and the others that it calls."""
        files = self.files
        before = files.current, files.calls
        files.current, files.calls = part, calls
        try:
            yield
        finally:
            files.current, files.calls = before


class RecordingRegistry(Registry):
    """Makes the plug-ins of another registry. Tokenizers, trainers and retrievers come wrapped; encoders and losses are
    noted as they are made, since a module cannot be wrapped unseen.

    stand_in: a tokenizer whose file does not fit the world gives arbitrary codes.
    """

    def __init__(self, registry: Registry, recording: Recording, *, stand_in: bool) -> None:
        super().__init__()
        self._made_by, self._recording, self._stand_in = registry, recording, stand_in

    def build(self, kind: str, component: Component | str, *runtime_objects: object, where: str | None = None) -> Any:
        """See Registry."""
        part = f"{singular(kind)} {component if isinstance(component, str) else component.name}"
        trace, make = self._recording.trace, self._made_by.build
        if kind in ("encoders", "losses"):
            trace.add("the protocol", f"the training data given to {part}", *runtime_objects)
        with self._recording.by(part):
            if kind == "tokenizers" and self._stand_in and isinstance(component, Component):
                return self._tokenizer(part, component)
            made = make(kind, component, *runtime_objects, where=where)
        if kind in ("encoders", "losses"):
            trace.add(part, "the parameters and buffers, as made,", made)
        elif kind == "tokenizers":
            return RecordedTokenizer(made.fit, part, self._recording)
        elif kind == "trainers":
            return RecordedTrainer(made, part, self._recording)
        elif kind == "retrievers":
            return RecordedRetriever(made, part, self._recording)
        return made

    def _tokenizer(self, part: str, component: Component) -> Tokenizer:
        def fit(data: TrainingData) -> Codes:
            try:
                codes: Codes = self._made_by.build("tokenizers", component).fit(data)
            except (GRBenchError, OSError) as error:
                if not names_a_file(self._made_by, "tokenizers", component):
                    raise
                self._recording.notes[
                    f"{part} reads a file of the suite's own data, which does not fit this world, and was not audited "
                    f"({first_line(error)}): arbitrary codes stand in. --own-data audits it"
                ] = None
                return arbitrary_codes(data.catalogue.num_items)
            return codes

        return RecordedTokenizer(fit, part, self._recording)


def arbitrary_codes(num_items: int) -> Codes:
    """The same at each call."""
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randint(size, (num_items + 1,), generator=generator) for size in STAND_IN_SIZES]
    table = torch.stack(levels, dim=1)
    table[0] = 0
    return Codes(table, STAND_IN_SIZES)


class RecordedTokenizer(Tokenizer):
    """A tokenizer's `fit`, with what it is given and gives."""

    def __init__(self, fit: Callable[[TrainingData], Codes], part: str, recording: Recording) -> None:
        self._fit, self._part, self._recording = fit, part, recording

    def fit(self, data: TrainingData) -> Codes:
        """See Tokenizer."""
        self._recording.trace.add("the protocol", f"the training data given to {self._part}", data)
        with self._recording.by(self._part):
            codes = self._fit(data)
        self._recording.trace.add(self._part, "the codes", codes)
        return codes


class RecordedTrainer(Trainer):
    """A trainer that is given the first STEPS batches of an epoch, with these batches and what its steps return."""

    def __init__(self, trainer: Trainer, part: str, recording: Recording) -> None:
        self._trainer, self._part, self._recording = trainer, part, recording

    def start(self, state: TrainState) -> None:
        """See Trainer."""
        with self._recording.by(self._part):
            optional(self._trainer, Trainer.start)(state)

    def examples(self, data: TrainingData, history_length: int, seed: int, epoch: int) -> Examples:
        """The first ones of the trainer's, or of those that it leaves to the loop."""
        with self._recording.by(self._part):
            own: Callable[..., Examples | None] = optional(self._trainer, Trainer.examples)
            found = own(data, history_length, seed, epoch)
        if found is None:
            found = newest_events(data, seed=seed, epoch=epoch)
        first = slice(STEPS * BATCH_SIZE)
        return Examples(found.rows[first], found.stops[first], found.last_only)

    def step(self, state: TrainState, batch: Batch) -> Mapping[str, Tensor | float]:
        """See Trainer."""
        what = f"{f'of stage {state.name}, ' if state.name else ''}step {state.step}"
        self._recording.trace.add("the protocol or the trainer", f"the batch ({what})", batch)
        with self._recording.by(self._part, calls=True):
            values = self._trainer.step(state, batch)
        self._recording.trace.add("the losses or the encoder", f"the values ({what})", dict(values))
        return values

    def finish(self, state: TrainState) -> None:
        """See Trainer."""
        with self._recording.by(self._part):
            optional(self._trainer, Trainer.finish)(state)
        self._recording.trace.add(self._part, "what it has trained", state.modules)

    def state_dict(self) -> dict[str, Any]:
        """See Trainer."""
        saved: dict[str, Any] = optional(self._trainer, Trainer.state_dict)()
        return saved

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """See Trainer."""
        optional(self._trainer, Trainer.load_state_dict)(saved)


class RecordedRetriever(Retriever):
    """A retriever with what it is given and finds."""

    needs: ClassVar[tuple[type, ...]] = ()

    def __init__(self, retriever: Retriever, part: str, recording: Recording) -> None:
        self._retriever, self._part, self._recording = retriever, part, recording

    def index(self, encoder: Any, candidates: Tensor, codes: Codes) -> None:
        """See Retriever."""
        self._recording.trace.add("the protocol", "the candidates", candidates)
        with self._recording.by(self._part, calls=True):
            self._retriever.index(encoder, candidates, codes)

    def search(self, encoder: Any, batch: Batch, k: int) -> TopK:
        """See Retriever."""
        self._recording.trace.add("the protocol", "the histories of the test queries", batch, ranked=True)
        with self._recording.by(self._part, calls=True):
            found = self._retriever.search(encoder, batch, k)
        self._recording.trace.add(self._part, "the lists", found, ranked=True)
        return found

    def check(self, candidates: int, codes: Codes | None) -> None:
        """See Retriever."""
        optional(self._retriever, Retriever.check)(candidates, codes)

    def check_encoder(self, encoder: Any) -> None:
        """See Retriever."""
        optional(self._retriever, Retriever.check_encoder)(encoder)

    def report(self) -> Mapping[str, Any] | None:
        """See Retriever."""
        report: Mapping[str, Any] | None = optional(self._retriever, Retriever.report)()
        return report


def modules_of(registry: Registry, parts: set[tuple[str, str]]) -> dict[str, str]:
    """{file of a plug-in's module: the plug-in, or those}, of the (kind, name) given."""
    found: dict[str, list[str]] = {}
    for kind, name in sorted(parts):
        module = inspect.getmodule(inspect.unwrap(registry.get(kind, name, imported=True).factory))
        if module is not None and module.__file__:
            found.setdefault(module.__file__, []).append(f"{singular(kind)} {name}")
    return {file: " or ".join(names) for file, names in found.items()}
