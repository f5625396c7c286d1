"""Tiny worlds that the tests of models share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from grbench.data.histories import Histories
from grbench.data.training_data import TrainingData
from grbench.registry.options import bound_values
from grbench.testing import tiny_store
from grbench.types import Batch
from grbench_reference.features.parts import EmbeddingTable

NAN = float("nan")

torch.set_num_threads(1)  # worlds this small spend their time waking threads up


def made_with(factory, *objects, **options):
    """The factory's product, its options flat as in a suite."""
    return factory(*objects, **bound_values(factory, options, "options"))


def training_data(folder: Path, histories, **described) -> TrainingData:
    """Every event of a tiny store as training data."""
    store = tiny_store(folder, histories, **described)
    return everything(store)


def everything(store, users=None) -> TrainingData:
    users = np.arange(len(store.offsets) - 1) if users is None else np.array(users)
    return TrainingData(store.catalogue, Histories(store, users, store.offsets[users], store.offsets[users + 1]))


def featured(folder: Path, users=None) -> TrainingData:
    """Four users, six items of which nobody has met 5 and 6; two fields, one multi-value; a 2-d embedding."""
    store = tiny_store(
        folder,
        [
            [(1, 0, 10), (2, 1, 20), (3, 0, 30), (1, 1, 40)],
            [(2, 0, 10), (4, 1, 20)],
            [(3, 1, 5)],
            [(4, 0, 1), (3, 0, 2), (2, None, 3)],
        ],
        num_items=6,
        item_features={"color": [0, 1, None, 1, 2, 0], "tags": [[0, 1], [2], None, [1], [3, 0], [0]]},
        user_features={"age": [1, 2, None, 1]},
        embeddings={"81": np.array([[1, 0], [0, 1], [NAN, NAN], [0.5, 0.5], [0, -1], [NAN, NAN]])},
    )
    return everything(store, users)


def batch_of(*rows, length: int | None = None, actions=None, targets=None, users=None) -> Batch:
    """Rows of items, left-padded to one length; targets are the next items unless given."""
    length = length or max(map(len, rows))

    def pad(lists):
        return torch.tensor([[0] * (length - len(row)) + list(row) for row in lists])

    items = pad(rows)
    if targets is None:
        targets = [[*row[1:], 0] for row in rows]
    actions = pad(actions) if actions is not None else (items > 0) * 2
    users = torch.arange(len(rows)) if users is None else torch.tensor(users)
    nothing = torch.zeros_like(users)
    next_actions = (pad(targets) > 0) * 2
    return Batch(users, items, actions, torch.zeros_like(items), pad(targets), next_actions, nothing, nothing, nothing)


def after_events(states, batch):
    """[B, T, D], the states after each event; those of an encoder with a user token have the token's before them."""
    return states[:, -batch.items.shape[1] :]


def away_from_the_start(encoder):
    """The encoder with weights so large that differences show; padding stays zero, as it always is."""
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    for module in encoder.modules():
        if isinstance(module, EmbeddingTable):
            module.weight.data[0] = 0
    return encoder.eval()


class TableEncoder(nn.Module):
    """User row u and item i have the vectors users[u] and items[i]."""

    history_length = 1

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users, self.items = users, items

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        return self.embed_histories(batch)[:, None], self.embed_items(items)

    def embed_histories(self, batch: Batch) -> Tensor:
        return self.users[batch.users]

    def embed_items(self, items: Tensor) -> Tensor:
        return self.items[items]
