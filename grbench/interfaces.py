"""Interfaces of the plug-ins of each kind. `grbench/hookspecs.py` lists the kinds and the arguments of their factories.

A factory is a class, or a function whose return annotation is a class. It takes run-time objects first; its
keyword-only, annotated arguments are its YAML options.

A plug-in must have the abstract methods. The other methods are optional: a plug-in inherits their defaults from the
class here, or is a plain class without them, for which the core uses the same defaults (`optional`).

Shapes: B users, T history length, N items, D width, L code levels, K_l codes of level l, P candidates, Q queries,
R rows (beams of all users).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from inspect import getattr_static
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

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

LookAhead = Literal["next_action", "events_left"]
"""What an encoder's state may depend on of what comes after it (`Encoder.looks_ahead`)."""


def optional(plugin: object, default: Callable[..., Result]) -> Callable[..., Result]:
    """A plug-in's method, or the default where its class does not have it.

    default: a method of one of the classes below, as in `optional(dataset, Dataset.store_bytes)()`.
    """
    owner = plugin if isinstance(plugin, type) else type(plugin)
    # Not the attribute of the instance: a submodule or a tensor may have the method's name.
    found = getattr_static(owner, default.__name__, None)
    own = found.__get__(None if owner is plugin else plugin, owner) if hasattr(found, "__get__") else found
    return own if callable(own) else partial(default, plugin)


class Dataset(ABC):
    """Reads a dataset on disk, the source, and writes it as a store."""

    @abstractmethod
    def digest(self) -> str:
        """A digest of the source's content; raises DataError where the source is missing or incomplete."""

    @abstractmethod
    def write(self, writer: StoreWriter) -> None:
        """Streams all tables to `writer`. Raises DataError, naming file, column and row, for malformed content."""

    def store_bytes(self) -> int | None:
        """The approximate size of the store, without reading the whole source; None = unknown."""
        return None

    def no_candidates(self) -> str | None:
        """Why the source has no candidate table, such as the path of a missing folder. None = it has one, or that is
        known only once it is read."""
        return None

    @classmethod
    def recognises(cls, path: Path) -> bool:  # noqa: ARG003 - used by overriding methods
        """Whether the folder or file at `path` has this dataset's layout."""
        return False

    def stand_in(self) -> Mapping[str, Any] | None:
        """A dataset as a suite writes it, its name and options, that needs no source and whose small store has the same
        fields as this one's. Methods are audited for leaks on it. None = on a made-up store of the core's."""
        return None

    def validate(self, progress: Progress) -> list[Finding] | None:  # noqa: ARG002
        """Reads the whole source and reports what was found in each part; None = only `write` checks the source."""
        return None


class EvaluationProtocol(ABC):
    """Defines which users are evaluated, their histories and targets, the training data, and the candidates."""

    def check(self, dataset: Dataset) -> None:
        """Raises DataError where the source lacks what the protocol needs. Called before the store is built."""

    def adds_targets_to_pool(self) -> bool:
        """Whether targets that are no candidates become candidates, so that the pool depends on them. A protocol whose
        pool depends on targets and does not say so here fails the leak audits."""
        return False

    @abstractmethod
    def split(self, store: Store) -> Split:
        """Splits a store. Raises DataError where an option does not fit the data or there is no user to evaluate."""


class Tokenizer(ABC):
    """Gives each item its semantic ID, from training data only."""

    @abstractmethod
    def fit(self, data: TrainingData) -> Codes:
        """Learns the codes of all items."""

    def fit_reporting(self, data: TrainingData, progress: Progress) -> Codes:  # noqa: ARG002
        """Like `fit`, and tells `progress` how far it is; what a run calls. For tokenizers that take more than a few
        seconds."""
        return self.fit(data)

    def stand_in(self, data: TrainingData) -> Codes | None:  # noqa: ARG002
        """Arbitrary codes of the shape that `fit` returns, with which a method is checked and its memory forecast
        before the tokenizer is fitted. Raises errors of `fit` that are known before. None = the shape is unknown."""
        return None


class Encoder(ABC):
    """An nn.Module that implements Embedder, Decoder or both. history_length: the number of newest events that it
    encodes."""

    history_length: int

    def codes(self) -> Codes | None:
        """For encoders that learn semantic IDs: the current codes of all items, which validation, search and the losses
        of later stages use in place of the tokenizer's. None = the tokenizer's are used."""
        return None

    def predicts_first_event(self) -> bool:
        """Whether the encoder has a state before a user's first event, that of the user's token, from which it predicts
        this event. Then `embed` gives [B, T + 1, D], the token's state first, users with a single event are trained on
        too, and `Batch.user_targets` are the first events."""
        return False

    def looks_ahead(self) -> Collection[LookAhead]:
        """What the state after an event depends on besides this and earlier events. next_action: the action of the next
        event, `Batch.next_actions`, which at test is the one that the protocol chooses. events_left: how many events
        of the batch's history follow, which are none at test. Any other dependence fails the leak audits."""
        return ()

    def one_pass(self) -> AbstractContextManager[Callable[[], Mapping[str, Tensor]]]:
        """A context in which several losses can share one forward pass of a batch. Yields a function that returns,
        once the losses are computed, further loss terms of the encoder by name."""
        return nullcontext(dict)

    def fixed_weights(self) -> AbstractContextManager[None]:
        """A context in which no weight changes and no gradient is taken, entered for indexing and for searching. What
        depends on weights, such as vectors propagated over a graph, may be kept until it is left, and no longer: a
        tensor's version or address does not tell whether a fused optimizer has changed it."""
        return nullcontext()


@runtime_checkable
class Embedder(Protocol):
    """An encoder that embeds histories and items in one vector space."""

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, T, D], the state after each event, and [N, D], the items' vectors). One method for both, so
        that a graph encoder propagates once per step. An encoder that predicts the first event puts the state of the
        user's token before the others: [B, T + 1, D]."""

    def embed_histories(self, batch: Batch) -> Tensor:
        """-> [B, D], the state after the newest event."""

    def embed_items(self, items: Tensor) -> Tensor:
        """items [N] -> [N, D]."""


@runtime_checkable
class DecoderState(Protocol):
    """The state of a decoder between decoding steps, such as its KV cache."""

    def select(self, rows: Tensor) -> DecoderState:
        """rows [R'], indices of the current rows -> the state of these rows; repeats, drops or reorders them."""


@runtime_checkable
class Decoder(Protocol):
    """An encoder that generates the next item's semantic ID, level by level."""

    def code_logits(self, batch: Batch) -> Sequence[Tensor]:
        """-> for each level l: [P, K_l], P = positions with a target, row by row; by teacher forcing on the codes of
        the targets, in the order of batch.all_targets."""

    def start(self, batch: Batch) -> tuple[Tensor, DecoderState]:
        """-> (logits of level 0 [B, K_0], state of B rows)."""

    def step(self, codes: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """codes [R], the code chosen for each row of the state -> (logits of the next level [R, K_l], next state)."""


class Loss(ABC):
    """An nn.Module that computes a loss of a batch, including the sampling and masking of negatives."""

    needs: ClassVar[tuple[type, ...]]
    """The interfaces of the encoder that the loss calls: (Embedder,), (Decoder,), both, or ()."""

    @abstractmethod
    def forward(self, encoder: Any, batch: Batch) -> Mapping[str, Tensor]:
        """-> scalar terms by name, each a mean over positions; training minimises their sum."""

    def weight(self, batch: Batch) -> Tensor:
        """What its terms' sums over positions are divided by, as a scalar: how much a part of a batch counts where
        several devices share it. The default: the number of positions that have a target."""
        return (batch.all_targets > 0).sum()

    def start_stage(self, name: str, number: int) -> None:
        """Called once before the first step. name: of the training stage, empty where the method has no stages; number:
        of the stage, 0 = first."""

    def survives(self) -> Collection[str]:
        """Names of buffers, as in `named_buffers`, whose values are carried over from the stage before. All others
        start anew in each stage (a memory bank is empty again). Their shapes must be the same in all stages.
        Parameters are carried over where their shape is the same."""
        return ()

    def grow(self) -> None:
        """Makes buffers that grow, such as a memory bank, as large as they ever get, with arbitrary content. Called for
        the forecast of memory."""


class Trainer(ABC):
    """Defines what training does with a batch: losses, gradients, updates. The training loop does everything else:
    epochs, loading batches, validation, selecting the best state, checkpoints, timing and progress.

    `grbench/training/state.py` defines the state that a trainer works on, and functions for trainers.
    """

    needs: ClassVar[tuple[type, ...]] = ()
    """The interfaces of the encoder that the trainer itself calls; losses declare their own."""

    @abstractmethod
    def step(self, state: TrainState, batch: Batch) -> Mapping[str, Tensor | float]:
        """Trains on one batch, which is on the state's device -> at least one scalar by name: `loss`, which is
        minimised, and its terms. `RESERVED_NAMES` of `grbench/cost/monitor.py` cannot be names. Their means over an
        epoch are its row of the training curve; training stops where one is not finite.

        The step should not wait for the device, as reading a tensor's value does.
        """

    def start(self, state: TrainState) -> None:
        """Called once per stage, before optimizers are created. Modules that it adds to `state.modules` are trained."""

    def finish(self, state: TrainState) -> None:
        """Called once at the end of a stage, in evaluation mode and with the encoder in its best state."""

    def examples(
        self,
        data: TrainingData,  # noqa: ARG002
        history_length: int,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        epoch: int,  # noqa: ARG002
    ) -> Examples | None:
        """The training examples of an epoch, in order; must depend on these arguments only. None = the newest
        history_length + 1 events of each trainable user, shuffled by seed and epoch. `data.first_target` says whether
        a user's first event is a target too."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """The trainer's own state, such as a frozen copy of the encoder, as plain values and tensors; part of a
        checkpoint."""
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restores a state that `state_dict` returned. Called after `start`."""


@runtime_checkable
class TrainEvalOptimizer(Protocol):
    """An optimizer whose parameters differ between training and evaluation, such as schedule-free ones. It is put into
    evaluation mode before each validation and at the end of a stage, and back into training mode afterwards."""

    def train(self) -> None: ...

    def eval(self) -> None: ...


class Retriever(ABC):
    """Finds the best candidates for histories."""

    needs: ClassVar[tuple[type, ...]]
    """The interfaces of the encoder that the retriever calls."""

    @abstractmethod
    def index(self, encoder: Any, candidates: Tensor, codes: Codes) -> None:
        """Indexes the candidates, [P] int64, ascending."""

    @abstractmethod
    def search(self, encoder: Any, batch: Batch, k: int) -> TopK:
        """The k best indexed candidates for each history of the batch."""

    def check(self, candidates: int, codes: Codes | None) -> None:
        """Called before training. Raises SuiteError where this number of candidates cannot be indexed. Of the codes,
        only `sizes` is final; None = not known yet."""

    def check_encoder(self, encoder: Any) -> None:
        """Called before training. Raises SuiteError where the encoder's options do not go with the retriever's."""

    def index_bytes(self, candidates: int, width: int) -> int | None:  # noqa: ARG002
        """Bytes of the index on the encoder's device, including the candidates' vectors [candidates, width]. None =
        only the vectors."""
        return None

    def report(self) -> Mapping[str, Any] | None:
        """Statistics of the index for the record, JSON-ready."""
        return None


class Metric(ABC):
    """Scores rankings. name: with the cutoff, `ndcg@10`; higher_is_better: whether larger values are better."""

    name: str
    higher_is_better: bool
    label: ClassVar[str | None] = None
    """The metric's name in tables; None = abbreviated from `name`."""
    per_user: ClassVar[bool] = True
    """Whether each query's value says something of its user alone, so that the mean's interval over users is right.
    False for a property of all lists together, such as the share of items in any of them: tables then show the mean
    without interval and marks."""

    @abstractmethod
    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64, one value per query, not a mean."""


class Slice(ABC):
    """Divides the queries into groups, in each of which tables and comparisons can give scores of its own.

    name: of letters, digits and `_`, with the options that are not their defaults after an `@`: `gap@1h,1d`.
    """

    name: str

    @abstractmethod
    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] text, each query's group; "" or None = it is in no group. Depends on histories, targets and training
        data, not on the lists: all methods have the same groups."""

    def order(self, ranking: Ranking) -> Sequence[str]:  # noqa: ARG002
        """All groups in the order of a table's columns, also those that no query is in; () = sorted by name."""
        return ()


class Tracker(ABC):
    """Logs the events of a running cell. Where a method raises, such as for a server that does not answer any more,
    this is said once, and the cell goes on without the tracker. Only where `keep` raises, the cell fails."""

    needs: ClassVar[tuple[type, ...]] = ()
    """The interfaces of the encoder that `keep` calls."""
    every_steps: int | None = None
    """Of the class or of the object. A number n from 1: `log` gets the losses of each n-th step itself; the host waits
    for the device there. None = it gets their means over the epoch so far, about twice a second and at each epoch's
    end."""

    def check(self) -> None:
        """Raises PluginError where something is missing without which the tracker cannot start, such as a package or a
        login. Called before anything is run."""

    @abstractmethod
    def start(self, folder: Path, cell: Mapping[str, Any]) -> None:
        """Called before the cell runs. folder: for the tracker's files, `<digest>.d/<tracker>` beside the record and
        the lists; cell: the cell as JSON-ready values, with its `digest` and, of a trial, the record's `trial`."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Called during training with losses and throughput (see `every_steps`), and at each validation with the values
        of all its metrics. step: number of steps so far, over all epochs and stages; `epoch` is among the values."""

    @abstractmethod
    def finish(self, record: Mapping[str, Any]) -> None:
        """Called after the cell has finished, with its record as it is on disk, as JSON-ready values. The lists are
        there too. The time of the whole cell is not known yet."""

    def resume(self, folder: Path, cell: Mapping[str, Any], step: int) -> None:  # noqa: ARG002
        """Called in place of `start` where a cell goes on from a checkpoint that was written after step number `step`:
        what was logged for later steps will be logged again. A tracker without this method is started anew, and logs
        the steps from there on."""
        self.start(folder, cell)

    def keep(self, encoder: Any, num_items: int) -> None:
        """Saves parts of the trained encoder. Called once, between training and search, with the encoder in evaluation
        mode and without gradients. num_items: N of the store."""
