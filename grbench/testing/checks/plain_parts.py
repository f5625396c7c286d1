"""What a plug-in is put together with while it is checked: the plainest part of each kind that is right.

Shapes: B users, T history length, N items, D width, L code levels, P positions with a target, R rows, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench.data.histories import Histories
from grbench.data.queries import candidate_pool, queries_at
from grbench.data.split import Split
from grbench.data.store import Store
from grbench.data.training_data import TrainingData
from grbench.errors import DataError
from grbench.hookspecs import Register, hookimpl
from grbench.interfaces import (
    Decoder,
    Embedder,
    Encoder,
    EvaluationProtocol,
    Loss,
    Metric,
    Retriever,
    Tokenizer,
    Trainer,
)
from grbench.training.state import TrainState
from grbench.types import FIRST_ACTION, Batch, Codes, Ranking, TopK

CODE_SIZES = (7, 5)
"""Fewer codes than items, so that some items share theirs."""


class PlainProtocol(EvaluationProtocol):
    """The last event of each user with three or more is the target, the one before it that of the validation."""

    def split(self, store: Store) -> Split:
        """See EvaluationProtocol."""
        starts, ends = np.asarray(store.offsets[:-1]), np.asarray(store.offsets[1:])
        users = np.flatnonzero(ends - starts >= 3)
        if not len(users):
            raise DataError("no user has three events, one to learn from and two to be found")
        every = np.arange(len(starts))
        stops = np.where(ends - starts >= 3, ends - 2, ends)
        return Split(
            training=TrainingData(store.catalogue, Histories(store, every, starts, stops)),
            validation=queries_at(store, users, ends[users] - 2, FIRST_ACTION),
            test=queries_at(store, users, ends[users] - 1, FIRST_ACTION),
            candidates=candidate_pool(store, "catalogue"),
            counts={"evaluated": len(users)},
        )


class PlainTokenizer(Tokenizer):
    """Two levels: an item's row modulo either size."""

    def fit(self, data: TrainingData) -> Codes:
        """See Tokenizer."""
        places = torch.arange(data.catalogue.num_items + 1)
        table = torch.stack([places % size for size in CODE_SIZES], 1)
        table[0] = 0
        return Codes(table, CODE_SIZES)

    def stand_in(self, data: TrainingData) -> Codes:
        """See Tokenizer."""
        return self.fit(data)


class Written(NamedTuple):
    """A decoder's state. contexts: [R, D]; level: that is written next."""

    contexts: Tensor
    level: int

    def select(self, rows: Tensor) -> Written:
        """See DecoderState."""
        return self._replace(contexts=self.contexts[rows])


class PlainEncoder(nn.Module, Encoder):
    """A state is the mean of the vectors of the events so far, turned by a linear map; a code's logits are a linear map
    of the state and of the codes before.

    Args:
        width: D
    """

    history_length = 12
    table: Tensor

    def __init__(self, data: TrainingData, codes: Codes, *, width: int = 8) -> None:
        super().__init__()
        self.items = nn.Embedding(data.catalogue.num_items + 1, width, padding_idx=0)
        self.turn = nn.Linear(width, width)
        self.levels = nn.ModuleList(nn.Linear(width, size) for size in codes.sizes)
        self.before = nn.ModuleList(nn.Embedding(size, width) for size in codes.sizes[:-1])
        self.register_buffer("table", codes.table, persistent=False)

    def states(self, batch: Batch) -> Tensor:
        """-> [B, T, D]."""
        seen = (batch.items > 0).cumsum(1).clamp(min=1).unsqueeze(2)
        turned: Tensor = self.turn(self.items(batch.items).cumsum(1) / seen)
        return turned

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """See Embedder."""
        return self.states(batch), self.embed_items(items)

    def embed_histories(self, batch: Batch) -> Tensor:
        """See Embedder."""
        return self.states(batch)[:, -1]

    def embed_items(self, items: Tensor) -> Tensor:
        """See Embedder."""
        vectors: Tensor = self.items(items)
        return vectors

    def code_logits(self, batch: Batch) -> list[Tensor]:
        """See Decoder."""
        states, targets = self.states(batch), batch.all_targets.flatten()
        positions = targets.nonzero().squeeze(1)
        contexts = states.flatten(0, 1)[batch.rows_of(states, positions)]
        logits: list[Tensor] = []
        for level, codes in enumerate(self.table[targets[positions]].T):
            logits.append(self.levels[level](contexts))
            contexts = self._after(contexts, level, codes)
        return logits

    def start(self, batch: Batch) -> tuple[Tensor, Written]:
        """See Decoder."""
        contexts = self.embed_histories(batch)
        return self.levels[0](contexts), Written(contexts, 0)

    def step(self, codes: Tensor, state: Written) -> tuple[Tensor, Written]:
        """See Decoder."""
        contexts = self._after(state.contexts, state.level, codes)
        return self.levels[state.level + 1](contexts), Written(contexts, state.level + 1)

    def _after(self, contexts: Tensor, level: int, codes: Tensor) -> Tensor:
        return contexts + self.before[level](codes) if level < len(self.before) else contexts


class PlainLoss(nn.Module, Loss):
    """Softmax over all items."""

    needs: ClassVar[tuple[type, ...]] = (Embedder,)

    def __init__(self, data: TrainingData, codes: Codes) -> None:  # noqa: ARG002
        super().__init__()
        self.num_items = data.catalogue.num_items

    def forward(self, encoder: Embedder, batch: Batch) -> Mapping[str, Tensor]:
        """See Loss."""
        targets = batch.all_targets.flatten()
        positions = targets.nonzero().squeeze(1)
        states, vectors = encoder.embed(batch, torch.arange(1, self.num_items + 1, device=targets.device))
        logits = states.flatten(0, 1)[batch.rows_of(states, positions)] @ vectors.T
        return {"softmax": _mean(functional.cross_entropy(logits, targets[positions] - 1, reduction="none"))}


class PlainCodeLoss(nn.Module, Loss):
    """Cross entropy of the target's code at each level."""

    needs: ClassVar[tuple[type, ...]] = (Decoder,)
    table: Tensor

    def __init__(self, data: TrainingData, codes: Codes) -> None:  # noqa: ARG002
        super().__init__()
        self.register_buffer("table", codes.table, persistent=False)

    def forward(self, encoder: Decoder, batch: Batch) -> Mapping[str, Tensor]:
        """See Loss."""
        targets = batch.all_targets.flatten()
        codes = self.table[targets[targets > 0]].T
        levels = zip(encoder.code_logits(batch), codes, strict=True)
        return {
            f"code_{level}": _mean(functional.cross_entropy(logits, own, reduction="none"))
            for level, (logits, own) in enumerate(levels, 1)
        }


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(len(values), 1)


class PlainTrainer(Trainer):
    """One update a batch."""

    def step(self, state: TrainState, batch: Batch) -> Mapping[str, Tensor]:
        """See Trainer."""
        with state.autocast():
            terms = [weight * term for loss, weight in state.losses for term in loss(state.encoder, batch).values()]
            loss = torch.stack([term.float() for term in terms]).sum()
        state.backward(loss)
        state.update()
        return {"loss": loss}


def plain_optimizer(module: nn.Module, *, lr: float = 0.05) -> list[torch.optim.Optimizer]:
    """SGD with momentum.

    Args:
        lr: learning rate
    """
    return [torch.optim.SGD([each for each in module.parameters() if each.requires_grad], lr=lr, momentum=0.9)]


class PlainRetriever(Retriever):
    """Scores all candidates."""

    needs: ClassVar[tuple[type, ...]] = (Embedder,)

    def index(self, encoder: Embedder, candidates: Tensor, codes: Codes) -> None:  # noqa: ARG002
        """See Retriever."""
        self.candidates, self.vectors = candidates, encoder.embed_items(candidates).float()

    def search(self, encoder: Embedder, batch: Batch, k: int) -> TopK:
        """See Retriever."""
        scores = encoder.embed_histories(batch).float() @ self.vectors.T
        best, places = scores.sort(dim=1, descending=True, stable=True)
        missing = (0, max(k - scores.shape[1], 0))
        return TopK(
            functional.pad(self.candidates[places[:, :k]], missing),
            functional.pad(best[:, :k], missing, value=-torch.inf),
        )


class PlainMetric(Metric):
    """Whether a target is among the first k.

    Args:
        k: length of the list
    """

    higher_is_better = True

    def __init__(self, *, k: int = 5) -> None:
        self.name, self.k = f"plain_hits@{k}", k

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """See Metric."""
        found = (ranking.ranks > 0) & (ranking.ranks <= self.k)
        return np.asarray(found.any(axis=1), np.float64)


class PlainParts:
    """Registers them."""

    FACTORIES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "protocols": {"plain": PlainProtocol},
        "tokenizers": {"plain": PlainTokenizer},
        "encoders": {"plain": PlainEncoder},
        "losses": {"plain": PlainLoss, "plain_codes": PlainCodeLoss},
        "trainers": {"plain": PlainTrainer},
        "retrievers": {"plain": PlainRetriever},
        "metrics": {"plain": PlainMetric},
        "optimizers": {"plain": plain_optimizer},
    }


def _hook(kind: str) -> Any:
    @hookimpl(specname=f"register_{kind}")
    def register_all(register: Register) -> None:
        for name, factory in PlainParts.FACTORIES[kind].items():
            register(name, factory)

    return staticmethod(register_all)


for _kind in PlainParts.FACTORIES:
    setattr(PlainParts, f"register_{_kind}", _hook(_kind))
