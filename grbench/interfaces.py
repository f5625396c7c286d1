"""What a plug-in of each kind is. `grbench/hookspecs.py` lists the kinds and what their factories are called with.

A factory takes run-time objects first; its keyword-only, annotated, defaulted arguments are its YAML options. It is a
class, or a function whose return annotation is a class.

Abstract methods must be there. The others are optional: a plug-in that inherits from the class has them, and a plain
class may leave them out; the core calls them through `optional`, and reads no attribute that is not named here.

Shapes: B users, T history length, N items, D width, L code levels, K_l codes of level l, P candidates, Q queries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from grbench.data.examples import Examples
    from grbench.data.split import Split
    from grbench.data.store import Store
    from grbench.data.store_writer import StoreWriter
    from grbench.data.training_data import TrainingData
    from grbench.training.state import TrainState
    from grbench.types import Batch, Codes, Finding, Progress, Ranking, TopK

Result = TypeVar("Result")


def optional(plugin: object, default: Callable[..., Result]) -> Callable[..., Result]:
    """A plug-in's optional method, or the default where its class leaves it out.

    default: the method of one of the classes below: `optional(dataset, Dataset.store_bytes)()`.
    """
    own = getattr(plugin, default.__name__, None)
    return own if callable(own) else partial(default, plugin)


class Dataset(ABC):
    """A dataset as it lies on disk. It names its content, and writes it into a store."""

    @abstractmethod
    def digest(self) -> str:
        """Names the source's content; raises DataError where the source is missing or incomplete."""

    @abstractmethod
    def write(self, writer: StoreWriter) -> None:
        """Streams every table into `writer`; raises DataError naming file, column and row."""

    def store_bytes(self) -> int | None:
        """About how many bytes its store takes, without reading the source through; None where that is not known."""
        return None

    @classmethod
    def recognises(cls, path: Path) -> bool:  # noqa: ARG003 - the path is for those that look
        """Whether the folder or file at `path` is laid out as this dataset reads it."""
        return False

    def validate(self, progress: Progress) -> list[Finding] | None:  # noqa: ARG002
        """Reads the whole source and says, part by part, what is there; None where it cannot say more than `write`."""
        return None


class EvaluationProtocol(ABC):
    """Decides who is evaluated, what of them is visible, what may be learnt from, and which candidates are ranked."""

    @abstractmethod
    def split(self, store: Store) -> Split:
        """Raises DataError where an option does not fit the data or no user is left to evaluate."""


class Tokenizer(ABC):
    """Gives each item its code. Sees training events only."""

    @abstractmethod
    def fit(self, data: TrainingData) -> Codes: ...

    def stand_in(self, data: TrainingData) -> Codes | None:  # noqa: ARG002
        """Codes of the shape that `fit` gives, without learning anything, so that a method is checked and its memory
        forecast before it is fitted. Raises what `fit` would raise, as far as that is known. None = not known."""
        return None


class Encoder(ABC):
    """An nn.Module that shows Embedder, Decoder or both. `history_length` = how many events of a history it reads."""

    history_length: int

    def codes(self) -> Codes | None:
        """The items' codes as they stand now, of an encoder that learns its tokenizer; they are used for validation and
        search, and by the losses of later stages, in place of the fitted ones. None = the fitted ones."""
        return None

    def one_pass(self) -> AbstractContextManager[Callable[[], Mapping[str, Tensor]]]:
        """Inside the context several losses may share one forward pass of a batch. The callable that it gives returns,
        once the losses are computed, the encoder's own terms to minimise by name."""
        return nullcontext(dict)


@runtime_checkable
class Embedder(Protocol):
    """The interface of encoders that put histories and items into one space."""

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, T, D] one vector a position, [N, D]); one call, so that a graph propagates once a step."""

    def embed_histories(self, batch: Batch) -> Tensor:
        """-> [B, D], the state after the newest event."""

    def embed_items(self, items: Tensor) -> Tensor:
        """items [N] -> [N, D]."""


@runtime_checkable
class DecoderState(Protocol):
    """What a decoder keeps between steps, its KV cache included."""

    def select(self, rows: Tensor) -> DecoderState:
        """Repeats, keeps or reorders rows: rows [R] indexes the current ones."""


@runtime_checkable
class Decoder(Protocol):
    """The interface of encoders that generate the next item's code, level by level."""

    def code_logits(self, batch: Batch) -> Sequence[Tensor]:
        """By teacher forcing on batch.targets -> per level l: [P, K_l], P = positions with a target, row by row."""

    def start(self, batch: Batch) -> tuple[Tensor, DecoderState]:
        """-> (logits of level 0 [B, K_0], state)."""

    def step(self, codes: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """codes [R], one a row of the state -> (logits of the next level [R, K_l], state)."""


class Loss(ABC):
    """An nn.Module. It picks, masks and chunks its own negatives."""

    needs: ClassVar[tuple[type, ...]]
    """The interfaces of the encoder that it calls: (Embedder,), (Decoder,), both, or ()."""

    @abstractmethod
    def forward(self, encoder: Any, batch: Batch) -> Mapping[str, Tensor]:
        """-> named scalar terms, each a mean over positions; training minimises their sum."""

    def start_stage(self, name: str, number: int) -> None:
        """Called once, before the first step: the name of the stage that this loss is made for (empty where a method
        has no stages) and its number, 0 = the first."""

    def survives(self) -> Collection[str]:
        """Names of the buffers, as `named_buffers` gives them, that go on from the stage before. Parameters always do.
        Every other buffer starts anew in each stage: a bank is filled again, and what counts steps counts from 0."""
        return ()

    def grow(self) -> None:
        """Makes what the loss holds (a memory bank, say) as large as it ever gets, of whatever content: memory is
        forecast for that."""


class Trainer(ABC):
    """Decides what one batch does to the model: losses, gradients, updates. The loop owns all else: which epoch it is,
    reading batches, validation, the best state, checkpoints, clocks and progress.

    `grbench/training/state.py` has what a trainer works on, and the helpers that it calls.
    """

    needs: ClassVar[tuple[type, ...]] = ()
    """The interfaces of the encoder that it calls itself; those that losses call are theirs to name."""

    @abstractmethod
    def step(self, state: TrainState, batch: Batch) -> Mapping[str, Tensor]:
        """Learns from one batch, on the state's device. Gives named scalars, whose means over an epoch are its row of
        the curve: `loss`, what is minimised, and its terms. Training stops where one of them is no finite number.

        The step must not wait for the device: reading a tensor's value makes the host do so.
        """

    def start(self, state: TrainState) -> None:
        """Called once a stage, before there are optimizers. A module that it adds to `state.modules` is trained."""

    def finish(self, state: TrainState) -> None:
        """Called once a stage, at its end, in evaluation mode and with the encoder in its best state."""

    def examples(
        self,
        data: TrainingData,  # noqa: ARG002
        history_length: int,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        epoch: int,  # noqa: ARG002
    ) -> Examples | None:
        """What an epoch trains on, in its order, a function of these arguments alone. None = every trainable user once,
        by its newest history_length + 1 events, in an order drawn by seed and epoch."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What the trainer itself has come to, as plain values and tensors; part of a checkpoint. A frozen copy of the
        encoder belongs here."""
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave. Called after `start`."""


@runtime_checkable
class TrainEvalOptimizer(Protocol):
    """An optimizer that keeps other parameters in training than in evaluation, as schedule-free ones do: it is put into
    evaluation mode before every validation and at the end of a stage, and back into training mode afterwards."""

    def train(self) -> None: ...

    def eval(self) -> None: ...


class Retriever(ABC):
    """Finds the best candidates for a history."""

    needs: ClassVar[tuple[type, ...]]
    """The interfaces of the encoder that it calls."""

    @abstractmethod
    def index(self, encoder: Any, candidates: Tensor, codes: Codes) -> None:
        """candidates [P] int64, ascending."""

    @abstractmethod
    def search(self, encoder: Any, batch: Batch, k: int) -> TopK: ...

    def check(self, candidates: int, codes: Codes | None) -> None:
        """Called before training. Raises SuiteError where so many candidates cannot be indexed. Of the codes only the
        sizes count; None where they are not known yet."""

    def index_bytes(self, candidates: int, width: int) -> int | None:  # noqa: ARG002
        """Bytes of the index on the encoder's device, the candidates' vectors [candidates, width] included. None = the
        vectors alone."""
        return None

    def report(self) -> Mapping[str, Any] | None:
        """What the record keeps of the index, JSON-ready."""
        return None


class Metric(ABC):
    """Scores a ranking. `name` carries k (`ndcg@10`); `higher_is_better` gives the table its arrow."""

    name: str
    higher_is_better: bool
    label: ClassVar[str | None] = None
    """How tables call it, where that does not follow from its name."""

    @abstractmethod
    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, one value a query, never a mean."""


class Tracker(ABC):
    """Hears what happens while a cell runs."""

    needs: ClassVar[tuple[type, ...]] = ()
    """The interfaces of the encoder that `keep` calls."""

    @abstractmethod
    def start(self, folder: Path, cell: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    @abstractmethod
    def finish(self, record: Mapping[str, Any]) -> None: ...

    def keep(self, encoder: Any, num_items: int) -> None:
        """Called once, between training and search, with the trained encoder in eval mode and without gradients.
        num_items: N of the store."""
