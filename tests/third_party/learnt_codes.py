"""A tokenizer learnt jointly with its decoder. An item's first code is the cluster that it belongs to most; the
clusters move as training goes on. Its second code counts the items of its cluster, so that no two share a code.

Shapes: B users, T history length, N items, K clusters, D width, R rows of a beam.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from grbench import hookimpl
from grbench.data.training_data import TrainingData
from grbench.interfaces import Decoder, Encoder, Loss, Tokenizer, Tracker
from grbench.types import Batch, Codes
from grbench_reference.retrievers.beam import Beam


def unique_codes(clusters: Tensor, sizes: tuple[int, int]) -> Codes:
    """clusters [N+1], row 0 = padding -> the items' codes (cluster, place in the cluster)."""
    order = torch.argsort(clusters[1:], stable=True)
    grouped = clusters[1:][order]
    starts = torch.searchsorted(grouped, grouped)
    table = torch.zeros(len(clusters), 2, dtype=torch.int64)
    table[1:, 0] = clusters[1:]
    table[1:, 1][order] = torch.arange(len(order)) - starts
    return Codes(table, sizes)


class RoundRobin(Tokenizer):
    """Where training starts from: item i is in cluster i modulo K.

    Args:
        clusters: K
    """

    def __init__(self, *, clusters: int = 4) -> None:
        self.clusters = clusters

    def fit(self, data: TrainingData) -> Codes:
        items = data.catalogue.num_items
        return unique_codes(torch.arange(items + 1) % self.clusters, (self.clusters, items))

    def stand_in(self, data: TrainingData) -> Codes:
        return self.fit(data)


class Beams(NamedTuple):
    """states [R, D]; clusters [R], of the first code."""

    states: Tensor
    clusters: Tensor

    def select(self, rows: Tensor) -> Beams:
        return Beams(self.states[rows], self.clusters[rows])


class LearntCodes(nn.Module, Encoder):
    """p(item | history) = sum over clusters of p(cluster | history) p(item | cluster), all of it learnt.

    Args:
        width: D
    """

    history_length = 8

    def __init__(self, data: TrainingData, codes: Codes, *, width: int = 16) -> None:
        super().__init__()
        self.sizes = codes.sizes
        self.items = nn.Embedding(data.catalogue.num_items + 1, width, padding_idx=0)
        self.clusters = nn.Linear(width, codes.sizes[0])
        belongs = nn.functional.one_hot(codes.table[:, 0], codes.sizes[0]).float()
        self.belongs = nn.Parameter(belongs * 0.1)  # so that the codes are at first the fitted ones

    def codes(self) -> Codes:
        return unique_codes(self.belongs.detach().argmax(1).cpu(), self.sizes)

    def states(self, batch: Batch) -> Tensor:
        """-> [B, T, D], the mean of the items so far."""
        seen = (batch.items > 0).unsqueeze(-1)
        counts = seen.cumsum(1).clamp(min=1)
        return self.items(batch.items).cumsum(1) / counts

    def log_probabilities(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """states [..., D] -> log p(cluster) [..., K], and log p(item | cluster) [N+1, K], -inf for padding."""
        of_items = self.belongs.index_fill(0, torch.zeros(1, dtype=torch.int64, device=self.belongs.device), -torch.inf)
        return self.clusters(states).log_softmax(-1), of_items.log_softmax(0)

    def code_logits(self, batch: Batch) -> list[Tensor]:
        where = batch.targets > 0
        states, clusters = (
            self.states(batch)[where],
            self.codes().table.to(batch.targets.device)[batch.targets[where], 0],
        )
        return [self.clusters(states), self.within(clusters)]

    def start(self, batch: Batch) -> tuple[Tensor, Beams]:
        states = self.states(batch)[:, -1]
        return self.clusters(states), Beams(states, torch.zeros_like(batch.users))

    def step(self, codes: Tensor, state: Beams) -> tuple[Tensor, Beams]:
        return self.within(codes), state._replace(clusters=codes)

    def within(self, clusters: Tensor) -> Tensor:
        """clusters [R] -> logits of the second code [R, N], -inf where the cluster has no such item."""
        table = self.codes().table.to(clusters.device)
        logits = self.belongs.new_full(self.sizes, -torch.inf)
        own = self.belongs[1:].gather(1, table[1:, :1]).squeeze(1)
        logits = logits.index_put((table[1:, 0], table[1:, 1]), own)
        return logits[clusters]


class Mixture(nn.Module, Loss):
    """- log p(next item | history), the clusters summed out, so that items are drawn to clusters of their kind."""

    needs: ClassVar[tuple[type, ...]] = (Decoder,)

    def __init__(self, data: TrainingData, codes: Codes) -> None:
        super().__init__()

    def forward(self, encoder: LearntCodes, batch: Batch) -> dict[str, Tensor]:
        where = batch.targets > 0
        of_clusters, of_items = encoder.log_probabilities(encoder.states(batch)[where])
        likelihoods = (of_clusters + of_items[batch.targets[where]]).logsumexp(1)
        return {"mixture": -likelihoods.sum() / max(len(likelihoods), 1)}


class WatchedBeam(Beam):
    """The reference's beam, which writes down the codes that each index is made of.

    Args:
        watched: where to
    """

    def __init__(self, *, watched: Path) -> None:
        super().__init__(width=[3, 3])
        self.watched = watched

    def index(self, encoder: nn.Module, candidates: Tensor, codes: Codes) -> None:
        self.watched.mkdir(exist_ok=True)
        np.save(self.watched / f"{len(list(self.watched.iterdir()))}.npy", codes.table.numpy())
        super().index(encoder, candidates, codes)


class FinalCodes(Tracker):
    """Keeps the codes that training ended with."""

    def start(self, folder: Path, cell: object) -> None:
        self.folder = folder

    def log(self, step: int, values: object) -> None: ...

    def finish(self, record: object) -> None: ...

    def keep(self, encoder: LearntCodes, num_items: int) -> None:
        np.save(self.folder / "codes.npy", encoder.codes().table.numpy())


@hookimpl
def register_tokenizers(register):
    register("round_robin", RoundRobin)


@hookimpl
def register_encoders(register):
    register("learnt_codes", LearntCodes)


@hookimpl
def register_losses(register):
    register("mixture", Mixture)


@hookimpl
def register_retrievers(register):
    register("watched_beam", WatchedBeam)


@hookimpl
def register_trackers(register):
    register("final_codes", FinalCodes)
