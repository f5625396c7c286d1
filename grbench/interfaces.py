"""What a plug-in is. A factory takes run-time objects first; its keyword-only, annotated, defaulted arguments are its
YAML options. Shapes: B users, T history length, N items, D width, L code levels, K_l codes of level l.

Kind        factory(...)                                    gives
datasets    (*, options)                                    Dataset
tokenizers  (*, options)                                    Tokenizer
encoders    (data: TrainingData, codes: Codes, *, options)  Encoder with the interfaces Embedder and / or Decoder
losses      (data: TrainingData, codes: Codes, *, options)  Loss
retrievers  (*, options)                                    Retriever
metrics     (*, k: int, options)                            Metric
optimizers  (module: nn.Module, *, options)                 list[torch.optim.Optimizer]
trackers    (*, options)                                    Tracker

A factory is a class, or a function whose return annotation is a class: its interfaces are read off it, before any
data is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from grbench.data.store_writer import StoreWriter
    from grbench.data.training_data import TrainingData
    from grbench.types import Batch, Codes, Ranking, TopK


@runtime_checkable
class Dataset(Protocol):
    """A layout on disk. It says what it is made of, and pours it into a store."""

    def digest(self) -> str:
        """Names the source's content; raises DataError where the source is missing or incomplete."""

    def write(self, writer: StoreWriter) -> None:
        """Streams every table into `writer`; raises DataError naming file, column and row."""


@runtime_checkable
class StoreSize(Protocol):
    """The optional interface of datasets that know how large their store gets."""

    def store_bytes(self) -> int | None:
        """About how many bytes, without reading the source through; None where that cannot be told."""


@runtime_checkable
class Tokenizer(Protocol):
    """Gives each item its code. Sees training events only.

    One that reads files has a `digest() -> str` of their content too, which becomes part of the cell's identity.
    """

    def fit(self, data: TrainingData) -> Codes: ...


@runtime_checkable
class StandIn(Protocol):
    """The optional interface of tokenizers that are checked, and memory planned for them, before they are fitted."""

    def stand_in(self, data: TrainingData) -> Codes:
        """Codes of the shape that `fit` gives, at once; which item has which is of no matter. Raises what `fit` would
        raise, as far as that is known without learning anything."""


@runtime_checkable
class Encoder(Protocol):
    """An nn.Module. `history_length` = how many events of a history it reads.

    One that learns its tokenizer has a method `codes() -> Codes | None` too: the items' codes as they stand now. It is
    called before every indexing, so at each validation and before the search; None = the fitted ones.
    """

    history_length: int


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
class SharedPass(Protocol):
    """The optional interface of encoders that read a batch once a step, however many losses ask."""

    def one_pass(self) -> AbstractContextManager[Callable[[], Mapping[str, Tensor]]]:
        """Inside, what a loss has had read of a batch is there for the next. When the losses are through, what is given
        says the encoder's own terms to minimise, by name; none but these come from it."""


@runtime_checkable
class DecoderState(Protocol):
    """What a decoder keeps between steps, its key-value cache included."""

    def select(self, rows: Tensor) -> DecoderState:
        """Repeats, keeps or reorders rows: rows [R] indexes the current ones."""


@runtime_checkable
class Decoder(Protocol):
    """The interface of encoders that write the next item's code, level by level."""

    def code_logits(self, batch: Batch) -> Sequence[Tensor]:
        """Teacher-forced by batch.targets -> per level l: [P, K_l], P = positions with a target, in row-major order."""

    def start(self, batch: Batch) -> tuple[Tensor, DecoderState]:
        """-> (logits of level 0 [B, K_0], state)."""

    def step(self, codes: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """codes [R], one a row of the state -> (logits of the next level [R, K_l], state)."""


@runtime_checkable
class Loss(Protocol):
    """An nn.Module. It picks, masks and chunks its own negatives."""

    needs: ClassVar[tuple[type, ...]]

    def forward(self, encoder: Any, batch: Batch) -> Mapping[str, Tensor]:
        """-> named scalar terms, each a mean over positions; training minimises their sum."""


@runtime_checkable
class Growing(Protocol):
    """The optional interface of losses that hold more as training goes on."""

    def grow(self) -> None:
        """Makes what it holds as large as it ever gets, of whatever content: memory is planned for that."""


@runtime_checkable
class Retriever(Protocol):
    """Finds the best candidates for a history."""

    needs: ClassVar[tuple[type, ...]]

    def index(self, encoder: Any, candidates: Tensor, codes: Codes) -> None:
        """candidates [P] int64, ascending."""

    def search(self, encoder: Any, batch: Batch, k: int) -> TopK: ...


@runtime_checkable
class PoolCheck(Protocol):
    """The optional interface of retrievers that know, before training, what they will not be able to index."""

    def check(self, candidates: int, codes: Codes | None) -> None:
        """Raises SuiteError where so many candidates cannot be indexed. Of the codes only the sizes count; None where
        they are not known yet."""


@runtime_checkable
class IndexSizes(Protocol):
    """The optional interface of retrievers that know what their index takes; others are taken to hold the vectors."""

    def index_bytes(self, candidates: int, width: int) -> int:
        """Bytes, the candidates' vectors [candidates, width] included, on the encoder's device."""


@runtime_checkable
class Metric(Protocol):
    """Scores a ranking. `name` carries k (`ndcg@10`); `higher_is_better` gives the table its arrow."""

    name: str
    higher_is_better: bool
    worst: float

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, one value a query, never a mean."""


@runtime_checkable
class Tracker(Protocol):
    """Told what happens while a cell runs."""

    def start(self, folder: Path, cell: Mapping[str, Any]) -> None: ...

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def finish(self, record: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Keeper(Protocol):
    """The optional interface of trackers that keep something of the encoder that training ended with."""

    def keep(self, encoder: Any, num_items: int) -> None:
        """Called once, between training and search, in eval mode and without gradients. num_items: N of the store."""
